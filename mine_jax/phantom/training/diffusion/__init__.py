"""Trains the diffusion models of the phantom, and the judge that recognises what they draw."""
