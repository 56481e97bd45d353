"""Our store beside plain Optuna, at several workers and at ten thousand trials."""
