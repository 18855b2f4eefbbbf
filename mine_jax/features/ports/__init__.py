"""Frozen models in flax: one folder per family, and what the families share."""
