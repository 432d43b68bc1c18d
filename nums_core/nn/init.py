"""First values of parameters: keys that are counters, and the usual distributions.

    keys = Keys(0)
    w = kaiming(keys.split("attn").split("q"), (256, 256))

A number depends on the seed, the names it was split by and its position: not on the order in which layers are made, nor on
how the array is cut. All bits are Philox 4x64-10's (`nums_core.array.random`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nums_core.array import creation
from nums_core.array.array import Array, asarray
from nums_core.errors import ConfigError, ShapeError
from nums_core.expr import build
from nums_core.expr import grid as grids
from nums_core.expr.node import Source
from nums_core.runtime.devices.random import Draw, RandomSource


class Keys:
    """Where random numbers come from: a seed, a place in the program, and optionally the number of a step.

    Parameters
    ----------
    seed : int, sequence of ints, or None (drawn by the operating system)

    Attributes
    ----------
    key : two 64-bit words, from the seed
    call : int
        64-bit hash of the names given to `split`.
    step : Array or None
        Shape (1,), int64: data, so that a jitted function draws other numbers at another step. A tree's only leaf.
    """

    __slots__ = ("call", "key", "step")

    def __init__(self, seed: Any = 0) -> None:
        first, second = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self.key, self.call = (int(first), int(second)), 0
        self.step: Array | None = None

    def split(self, *names: str | int) -> Keys:
        """Keys of their own for a part of the program: equal names give equal keys, others independent ones."""
        call = self.call
        for name in names:
            text = f"{call}/{type(name).__name__}/{name}".encode()
            call = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        return self._made(call, self.step)

    def at(self, step: Any) -> Keys:
        """The same keys for step number `step`: an int, or an integer Array of one element."""
        step = asarray(step, np.int64) if isinstance(step, Array) else asarray(np.array([step], np.int64))
        return self._made(self.call, step.reshape((1,)))

    def _made(self, call: int, step: Array | None) -> Keys:
        made = object.__new__(type(self))
        made.key, made.call, made.step = self.key, call, step
        return made

    def tree_flatten(self) -> tuple[list[Any], Any]:
        return [self.step], (self.key, self.call)

    @classmethod
    def tree_unflatten(cls, rest: Any, children: list[Any]) -> Keys:
        made = object.__new__(cls)
        (made.key, made.call), (made.step,) = rest, children
        return made

    def tree_names(self) -> list[str]:
        return ["step"]

    def __repr__(self) -> str:
        return f"Keys(key={self.key[0]:x}, call={self.call:x}{'' if self.step is None else ', with a step'})"


# -- distributions ----------------------------------------------------------------------------------------------------

def _drawn(keys: Keys, method: str, shape: Sequence[int], dtype: Any, chunks: Any) -> Array:
    """Standard variates in float32, or float64 where that is asked for."""
    if keys.step is not None:
        raise ConfigError("initialisers draw once and for all, and these keys belong to a step; pass the keys that .at() was "
                          "called on")
    dtype = np.dtype(dtype)
    wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    shape = tuple(map(int, shape))
    source = Source("reader", RandomSource(Draw(method, (), wide.str, keys.key, keys.call), shape), shape, wide)
    return Array(build.leaf(source, grids.normalize(chunks, shape, wide)))


def normal(keys: Keys, shape: Sequence[int], std: float = 0.02, dtype: Any = "float32", chunks: Any = -1) -> Array:
    """Normal with mean 0 and deviation `std`; in one block unless `chunks` says otherwise."""
    return (_drawn(keys, "standard_normal", shape, dtype, chunks) * std).astype(dtype)


def uniform(keys: Keys, shape: Sequence[int], bound: float = 1.0, dtype: Any = "float32", chunks: Any = -1) -> Array:
    """Uniform on [-bound, bound)."""
    return (_drawn(keys, "random", shape, dtype, chunks) * (2 * bound) - bound).astype(dtype)


def zeros(shape: Sequence[int], dtype: Any = "float32", chunks: Any = -1) -> Array:
    return creation.zeros(tuple(shape), dtype, chunks=chunks)


def ones(shape: Sequence[int], dtype: Any = "float32", chunks: Any = -1) -> Array:
    return creation.ones(tuple(shape), dtype, chunks=chunks)


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """How many inputs an output sees, and how many outputs an input reaches, of a weight (out, in, *window).

    Raises
    ------
    ShapeError
        Fewer than two axes.
    """
    if len(shape) < 2:
        raise ShapeError(f"a weight of shape {tuple(shape)} has no fans; xavier and kaiming take (out, in, *window): use "
                         "normal or uniform for vectors")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def xavier(keys: Keys, shape: Sequence[int], gain: float = 1.0, distribution: str = "uniform", dtype: Any = "float32",
           chunks: Any = -1) -> Array:
    """Variance gain² · 2 / (fan_in + fan_out).

    References
    ----------
    .. [1] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
           2010, eq. (16).
    """
    return _scaled(keys, shape, gain * math.sqrt(2 / sum(fans(shape))), distribution, dtype, chunks)


def kaiming(keys: Keys, shape: Sequence[int], gain: float = math.sqrt(2), distribution: str = "normal",
            dtype: Any = "float32", chunks: Any = -1) -> Array:
    """Variance gain² / fan_in; the gain of √2 is right before a ReLU.

    References
    ----------
    .. [1] K. He et al., "Delving deep into rectifiers", ICCV 2015, eq. (10).
    """
    return _scaled(keys, shape, gain / math.sqrt(fans(shape)[0]), distribution, dtype, chunks)


def _scaled(keys: Keys, shape: Sequence[int], std: float, distribution: str, dtype: Any, chunks: Any) -> Array:
    if distribution == "normal":
        return normal(keys, shape, std, dtype, chunks)
    if distribution == "uniform":
        return uniform(keys, shape, math.sqrt(3) * std, dtype, chunks)
    raise ConfigError(f"distribution={distribution!r}; give 'normal' or 'uniform'")


__all__ = ["Keys", "fans", "kaiming", "normal", "ones", "uniform", "xavier", "zeros"]
