"""Dropout, as a layer without parameters."""

from __future__ import annotations

from nums_core.array.array import Array
from nums_core.nn.functional import dropout
from nums_core.nn.init import Keys
from nums_core.nn.module import Module, static


class Dropout(Module):
    """Zeroes elements with probability `rate` while training, that is where a key is given."""

    rate: float = static(default=0.1)

    def __call__(self, x: Array, key: Keys | None = None) -> Array:
        """Like x; see `functional.dropout`."""
        return dropout(x, self.rate, key)


__all__ = ["Dropout"]
