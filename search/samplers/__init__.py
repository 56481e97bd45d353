"""Samplers: who proposes the next candidate, what they see of the past, and when a training is stopped early."""
