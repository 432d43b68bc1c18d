"""Linear: an affine map of the last axis."""

from __future__ import annotations

from typing import Any, Self

from nums_core.array.array import Array
from nums_core.nn import init
from nums_core.nn.functional import linear
from nums_core.nn.init import Keys
from nums_core.nn.module import Module


class Linear(Module):
    """x weightᵀ + bias

    Parameters
    ----------
    weight : Array, shape (out_features, in_features), or an object with `matmul(x)`, such as a quantised matrix
    bias : Array, shape (out_features,), optional
    """

    weight: Any
    bias: Array | None = None

    @classmethod
    def init(cls, rng: Keys, in_features: int, out_features: int, bias: bool = True, dtype: Any = "float32",
             std: float | None = None) -> Self:
        """Weights normal with deviation `std` (default 1 / √in_features), bias 0."""
        std = in_features ** -0.5 if std is None else std
        weight = init.normal(rng.split("weight"), (out_features, in_features), std, dtype)
        return cls(weight, init.zeros((out_features,), dtype) if bias else None)

    def __call__(self, x: Array) -> Array:
        """(..., in_features) -> (..., out_features)"""
        return linear(x, self.weight, self.bias)


__all__ = ["Linear"]
