"""Picking: the network that is wanted inside a budget, verified on the device, retrained if wanted, and tested once."""
