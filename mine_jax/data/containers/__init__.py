"""Series of values in any container that the field uses: one way to read chosen voxels."""
