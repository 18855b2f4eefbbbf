"""Trains the CLIP of the phantom."""
