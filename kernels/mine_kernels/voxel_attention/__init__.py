"""Attention of many voxels over the tokens of an image batch."""
