"""The types that the signatures of all ops share."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray
# by name; None where an optional one is missing
Arrays = dict[str, Any]
