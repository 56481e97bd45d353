"""Real searches whose processes are killed at every phase, and the judge that reads what is left."""
