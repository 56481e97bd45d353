"""The panels of single trials: one network, what it kept, how fast it was, and trials side by side."""
