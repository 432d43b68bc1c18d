"""Normalisation layers, over the last axis."""

from __future__ import annotations

from typing import Any, Self

from nums_core.array.array import Array
from nums_core.nn import init
from nums_core.nn.functional import layer_norm, rms_norm
from nums_core.nn.module import Module, static


class RMSNorm(Module):
    """x / √(mean(x²) + eps) · weight

    Parameters
    ----------
    weight : Array, shape (d,), optional
    eps : float
    """

    weight: Array | None = None
    eps: float = static(default=1e-6)

    @classmethod
    def init(cls, d: int, eps: float = 1e-6, dtype: Any = "float32") -> Self:
        return cls(init.ones((d,), dtype), eps)

    def __call__(self, x: Array) -> Array:
        """(..., d) -> (..., d)"""
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(Module):
    """(x - mean) / √(variance + eps) · weight + bias

    Parameters
    ----------
    weight, bias : Array, shape (d,), optional
    eps : float
    """

    weight: Array | None = None
    bias: Array | None = None
    eps: float = static(default=1e-5)

    @classmethod
    def init(cls, d: int, eps: float = 1e-5, bias: bool = True, dtype: Any = "float32") -> Self:
        return cls(init.ones((d,), dtype), init.zeros((d,), dtype) if bias else None, eps)

    def __call__(self, x: Array) -> Array:
        """(..., d) -> (..., d)"""
        return layer_norm(x, self.weight, self.bias, self.eps)


__all__ = ["LayerNorm", "RMSNorm"]
