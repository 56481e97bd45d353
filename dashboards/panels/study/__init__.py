"""The panels of a whole study: its front, what matters in it, how its networks learned, and its progress."""
