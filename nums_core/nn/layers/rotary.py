"""Rotary positions, as a layer without parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nums_core.array.array import Array
from nums_core.nn.module import Module, static
from nums_core.nn.ops.rotary import check, frequencies, rotate, turn


class Rotary(Module):
    """Turns pairs of features of queries and keys by their positions, so that products depend on distances alone.

    Parameters
    ----------
    dim : int, even
        Features that turn; a head's further ones pass.
    base : float
        Wavelengths grow from 2π to 2π·base positions.
    scaling : mapping, or its items as a tuple, optional
        Hugging Face's `rope_scaling`: "linear" or "llama3".
    interleaved : bool
        Pairs are (2i, 2i + 1) instead of (i, i + dim / 2).

    References
    ----------
    .. [1] J. Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021, eq. (34).
    """

    dim: int = static()
    base: float = static(default=10000.0)
    scaling: Any = static(default=None)
    interleaved: bool = static(default=False)

    def __post_init__(self) -> None:
        if isinstance(self.scaling, Mapping):
            object.__setattr__(self, "scaling", tuple(sorted(self.scaling.items())))
        frequencies(self.dim, self.base, self.scaling)  # refuses unknown scaling where the layer is made

    def __call__(self, x: Array, positions: Array) -> Array:
        """x (*lead, heads, d), positions integers that broadcast to `lead` -> like x"""
        return rotate(x, positions, **self._settings())

    def apply(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The same on NumPy arrays, for kernels: at once, a new array."""
        check(x.shape[-1], self.dim)
        return turn(x, np.asarray(positions), signature=None, back=False, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {"dim": self.dim, "base": float(self.base), "scaling": self.scaling, "interleaved": self.interleaved}


__all__ = ["Rotary"]
