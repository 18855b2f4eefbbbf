"""Fused operations for many voxels at once; imports jax only.

Shapes use the letters V voxels, N images (B in a batch), P image-tokens, E width of a
head, H heads, G key heads (1 when all heads share the keys, else H), S path steps.
"""

from mine_kernels.masked_softmax import masked_softmax as masked_softmax
from mine_kernels.token_ig.op import token_ig as token_ig
from mine_kernels.voxel_attention.op import voxel_attention as voxel_attention
from mine_kernels.voxel_attention.op import voxel_attention_gradients as voxel_attention_gradients

__all__ = ["masked_softmax", "token_ig", "voxel_attention", "voxel_attention_gradients"]
