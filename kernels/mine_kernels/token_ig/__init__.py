"""Exact integrated gradients over tokens for attention readouts."""
