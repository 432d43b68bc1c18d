"""RandomState: numpy's and dask's older names over the same streams."""

from __future__ import annotations

from typing import Any

import numpy as np

from nums_core.array.array import Array
from nums_core.array.random.generator import Generator


class RandomState(Generator):
    """The methods of numpy.random.RandomState, lazily, on blocks.

    The bits are those of `Generator`: by position, never by chunks. (NumPy's RandomState gives other values for a seed.)
    """

    def __init__(self, seed: Any = None) -> None:
        super().__init__(seed)

    def seed(self, seed: Any = None) -> None:
        """Start again from `seed`."""
        self._stream = type(self._stream)(seed)

    def __reduce__(self) -> Any:
        return RandomState, (self._stream,)

    def get_state(self, legacy: bool = True) -> Any:
        """The key and the number of calls so far, for `set_state`."""
        return "Philox", self._stream.key, self._stream.calls

    def set_state(self, state: Any) -> None:
        """Go back to what `get_state` gave."""
        if len(state) != 3 or state[0] != "Philox":
            raise ValueError(f"the state is that of a {state[0]!r} generator; set_state() takes what get_state() of this "
                             "class gave")
        self._stream.key, self._stream.calls = tuple(state[1]), state[2]

    def random_sample(self, size: Any = None, chunks: Any = "auto") -> Array:
        """Uniform on [0, 1)."""
        return self.random(size, chunks=chunks)

    def rand(self, *shape: int, chunks: Any = "auto") -> Array:
        """Uniform on [0, 1), the shape as arguments."""
        return self.random(shape, chunks=chunks)

    def randn(self, *shape: int, chunks: Any = "auto") -> Array:
        """Standard normal, the shape as arguments."""
        return self.standard_normal(shape, chunks=chunks)

    def randint(self, low: Any, high: Any = None, size: Any = None, dtype: Any = int, chunks: Any = "auto") -> Array:
        """Integers from `low` to below `high`."""
        return self.integers(low, high, size, dtype, chunks=chunks)

    def random_integers(self, low: Any, high: Any = None, size: Any = None, chunks: Any = "auto") -> Array:
        """Integers from `low` to `high`, both included; from 1 with one bound."""
        if high is None:
            low, high = 1, low
        return self.integers(low, high, size, endpoint=True, chunks=chunks)

    def tomaxint(self, size: Any = None, chunks: Any = "auto") -> Array:
        """Integers from 0 to the largest C long."""
        return self.integers(0, np.iinfo(np.int_).max, size, endpoint=True, chunks=chunks)


__all__ = ["RandomState"]
