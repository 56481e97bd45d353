"""Fewer trainings for any Optuna study: the accuracy of a small classifier against its number of weights."""
