"""Rotation: a rotary embedding as kernels want it, with the waves of a step's positions made once for all layers.

Any rotary embedding is linear and mixes an element with one partner: out = x * cos + x[partner] * sin. Partners and factors
are read off the embedding by turning unit vectors, so that every kind serves, with just the bits it would give itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from nums_core.nn import tree


class Waves(NamedTuple):
    """Factors of n positions: float32 (n, 1, head_dim) each."""

    cos: np.ndarray
    sin: np.ndarray


class Rotation:
    """A rotary embedding of heads of `dim` elements, compared by its settings: all layers' are the same.

    Parameters
    ----------
    rotary : any object with `apply(x (..., heads, dim), positions (...))` on NumPy arrays
    """

    def __init__(self, rotary: Any, dim: int) -> None:
        self.rotary, self.dim = rotary, dim
        leaves, settings = tree.flatten(rotary)
        self._key = (type(rotary), tuple(leaves), settings, dim)
        self._hash = hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rotation) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def apply(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """x (..., heads, dim) turned by `positions` (...)."""
        return self.rotary.apply(x, positions)

    def waves(self, positions: np.ndarray) -> Waves:
        """Factors for positions (n,)."""
        first = _partners(self) >= np.arange(self.dim)  # one of each pair, and those that stay
        units = np.broadcast_to(np.stack((first, ~first)).astype(np.float32), (len(positions), 2, self.dim))
        of_first, of_second = self.apply(units, positions).swapaxes(0, 1)
        return Waves(*(np.where(first, a, b)[:, None] for a, b in ((of_first, of_second), (of_second, of_first))))

    def turned(self, x: np.ndarray, waves: Waves) -> np.ndarray:
        """x (n, heads, dim) turned by the positions of `waves`."""
        out, other = x * waves.cos, x.take(_partners(self), axis=-1)
        other *= waves.sin
        out += other
        return out


@lru_cache(maxsize=64)
def the_same(rotation: Rotation) -> Rotation:
    """The first of those equal to `rotation`: looking up what is known of it then compares nothing."""
    return rotation


@lru_cache(maxsize=64)
def _partners(rotation: Rotation) -> np.ndarray:
    """Which element each is mixed with; itself where it stays as it is."""
    mixed = rotation.apply(np.eye(rotation.dim, dtype=np.float32)[None], np.ones(1, np.int64))[0]
    np.fill_diagonal(mixed, 0)
    return np.where(mixed.any(axis=0), np.abs(mixed).argmax(axis=0), np.arange(rotation.dim))
