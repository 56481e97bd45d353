"""Serving a hub: fetch what it asks for, measure it, and bring back every result."""
