"""Pricing: what a candidate costs before it is trained, measured, estimated or predicted."""
