"""Picking: the best network inside a budget, verified on the device and tested once."""
