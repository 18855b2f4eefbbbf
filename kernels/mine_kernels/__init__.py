"""Fused operations for many voxels at once; imports jax only.

Shapes use the letters V voxels, N images (B in a batch), P image-tokens, E width of a
head, H heads, G key heads (1 when all heads share the keys, else H), S path steps.
"""

from mine_kernels.masked_softmax import masked_softmax as masked_softmax
from mine_kernels.ridge_sweep.op import ridge_sweep as ridge_sweep
from mine_kernels.token_ig.op import token_ig as token_ig
from mine_kernels.token_ig.op import token_ig_top_k as token_ig_top_k
from mine_kernels.token_ig.op import top_k as top_k
from mine_kernels.voxel_attention.op import voxel_attention as voxel_attention
from mine_kernels.voxel_attention.op import voxel_attention_gradients as voxel_attention_gradients
from mine_kernels.voxel_attention.op import voxel_attention_trunk_gradients as voxel_attention_trunk_gradients

__all__ = [
    "masked_softmax",
    "ridge_sweep",
    "token_ig",
    "token_ig_top_k",
    "top_k",
    "voxel_attention",
    "voxel_attention_gradients",
    "voxel_attention_trunk_gradients",
]
