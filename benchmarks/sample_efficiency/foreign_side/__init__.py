"""Samplers of other libraries, run in whichever Python has them; `serve` talks to the benchmark."""
