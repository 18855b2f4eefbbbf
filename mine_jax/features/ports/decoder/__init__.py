"""Language models that see an image in their prompt: sizes, blocks, and what their backbones have in common."""
