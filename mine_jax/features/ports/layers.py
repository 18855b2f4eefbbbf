"""What the transformers of all families share: dense layers of either precision, activations.

Weights may be bfloat16: products then have bfloat16 operands and float32 sums, and everything
between them (residual stream, norms, softmax, activations) stays float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# By the names that configurations of transformers use.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


class Dense(nn.Module):
    """Product in the dtype of the weights, summed and returned in float32."""

    features: int
    use_bias: bool
    precision: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, in] to [B, T, features] float32."""
        kernel = self.param("kernel", nn.initializers.zeros, (x.shape[-1], self.features))
        y = product("btd,de->bte", x.astype(kernel.dtype), kernel, self.precision)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(jnp.float32)[None, None]
        return y

    @property
    def kind(self) -> Any:
        """Dtype of the weights."""
        return self.variables["params"]["kernel"].dtype if self.has_variable("params", "kernel") else jnp.float32


def product(subscripts: str, a: jax.Array, b: jax.Array, precision: str) -> jax.Array:
    """Returns the einsum of two arrays of one dtype, summed in float32."""
    return jnp.einsum(subscripts, a, b, precision=precision, preferred_element_type=jnp.float32)


def is_block_product(path: str) -> bool:
    """Tells whether a parameter belongs to a dense layer of a transformer block.

    Almost all the work is in these; embeddings, norms and heads of a vision tower are not.
    """
    in_block = any(name in path for name in ("/layers_", "/blocks_", "/block_list_"))
    return in_block and not path.endswith(("/scale", "/gamma")) and "norm" not in path
