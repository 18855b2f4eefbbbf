"""The linear term of query encoders: what a voxel reads of the whole grid of image-tokens, beside its query."""
