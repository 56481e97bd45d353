"""Panels of several studies."""
