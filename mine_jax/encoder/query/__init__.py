"""The query encoder: attention of each voxel over image-tokens, fitted for all voxels at once."""
