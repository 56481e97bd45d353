"""Configs of a user's own that the search tries next: read, and completed where they name a part of a network."""
