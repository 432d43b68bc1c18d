"""Embeddings: a learned vector for every token, or for every position."""

from __future__ import annotations

from typing import Any, Self

from nums_core.array.array import Array
from nums_core.nn import init
from nums_core.nn.functional import embedding, linear
from nums_core.nn.init import Keys
from nums_core.nn.module import Module, static


class Embedding(Module):
    """weight[ids]

    Parameters
    ----------
    weight : Array, shape (rows, d), or an object with `take(ids)` and `matmul(x)`, such as a quantised matrix
    """

    weight: Any

    @classmethod
    def init(cls, rng: Keys, rows: int, d: int, dtype: Any = "float32", std: float = 0.02) -> Self:
        return cls(init.normal(rng.split("weight"), (rows, d), std, dtype))

    def __call__(self, ids: Array) -> Array:
        """(...) integers -> (..., d)"""
        return embedding(self.weight, ids)

    def logits(self, x: Array) -> Array:
        """x weightᵀ: the table as the last layer, for models that tie the two. (..., d) -> (..., rows)"""
        return linear(x, self.weight)


class PositionEmbedding(Module):
    """Learned positions: weight[position + offset].

    Parameters
    ----------
    weight : Array, shape (max_positions + offset, d)
    offset : int
        Rows in front that stand for no position (2 in OPT's checkpoints).
    """

    weight: Any
    offset: int = static(default=0)

    @classmethod
    def init(cls, rng: Keys, max_positions: int, d: int, dtype: Any = "float32", std: float = 0.02, offset: int = 0) -> Self:
        return cls(init.normal(rng.split("weight"), (max_positions + offset, d), std, dtype), offset)

    def __call__(self, positions: Array) -> Array:
        """(...) integers -> (..., d)"""
        return embedding(self.weight, positions + self.offset)


__all__ = ["Embedding", "PositionEmbedding"]
