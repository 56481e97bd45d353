"""Trainings that cost less than the full one: how much less, and whether they rank networks as the full one does."""
