"""Runners: the processes that host trials, on this machine or on a Ray cluster."""
