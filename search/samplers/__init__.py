"""Samplers propose the next candidate from the trials so far; a stopping rule ends trainings that fall behind."""
