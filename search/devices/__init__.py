"""Measuring devices behind a hub: their registry, their jobs, the HTTP API of their agents."""

PORT = 8700  # the hub's default
