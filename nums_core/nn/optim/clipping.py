"""Clipping gradients, by value and by global norm.

Source     R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
           Algorithm 1, with the norm over all parameters together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.array.array import Array
from nums_core.array.elementwise import sqrt
from nums_core.errors import ConfigError
from nums_core.nn import tree
from nums_core.nn.optim.optimiser import Scalar, slot_dtype, trainable


def global_norm(grads: Any) -> Array:
    """Euclidean norm of all gradients as one vector: an Array of shape (), float32 or wider."""
    leaves = [g for g in tree.flatten(grads)[0] if trainable(g)]
    if not leaves:
        raise ConfigError("global_norm() of a tree without floating arrays; pass the gradients that grad() gives")
    wide = [g.astype(slot_dtype(g)) for g in leaves]
    return sqrt(_sum([(g * g).sum() for g in wide]))


def _sum(terms: Sequence[Array]) -> Array:
    """A tree of additions: as deep as the logarithm of the number of parameters."""
    while len(terms) > 1:
        terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)] + list(terms[len(terms) & ~1:])
    return terms[0]


def clip_factor(norm: Array, limit: float) -> Scalar:
    """What gradients of this norm are multiplied with: 1, exactly, where the norm is within the limit."""
    if not (limit > 0 and math.isfinite(limit)):
        raise ConfigError(f"gradients cannot be clipped to a norm of {limit}; give a limit above 0, or None")
    return limit / np.maximum(norm, limit)


def clip_by_global_norm(grads: Any, limit: float) -> tuple[Any, Array]:
    """Gradients scaled down together to a norm of at most `limit`, and the norm they had before.

    Parameters
    ----------
    grads : tree of Arrays
    limit : float, above 0
    """
    norm = global_norm(grads)
    return scaled(grads, clip_factor(norm, limit)), norm


def scaled(grads: Any, factor: Scalar) -> Any:
    """Every floating gradient times `factor`, in its own dtype."""
    def one(g: Any) -> Any:
        if not trainable(g):
            return g
        return g * (factor.astype(g.dtype) if isinstance(factor, Array) else factor)
    return tree.map(one, grads)


def clip_by_value(grads: Any, limit: float) -> Any:
    """Every element of every gradient brought into [-limit, limit]."""
    if not limit > 0:
        raise ConfigError(f"gradients cannot be clipped to values within {limit}; give a limit above 0")
    return tree.map(lambda g: np.clip(g, -limit, limit) if trainable(g) else g, grads)
