"""Quantization: a network in 8 bits: its numbers' ranges on training images, their rounding, and corrections."""
