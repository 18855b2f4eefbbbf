"""Validation errors of ridge solutions at each voxel's candidate penalties."""
