"""Generator: numpy.random.Generator on blocks."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from nums_core.array.array import Array
from nums_core.array.random import draws
from nums_core.array.random.distributions import Distributions
from nums_core.array.random.draws import Stream
from nums_core.array.random.shuffling import Shuffling
from nums_core.array.random.vectors import Vectors


class Generator(Distributions, Vectors, Shuffling):
    """Random arrays, lazily, in blocks; numpy.random.Generator's methods with `chunks=`.

    The value of an element depends on the seed, the number of the call and the element's position in C order. It does not
    depend on chunks, threads, workers or machines, and a slice is computed without the rest. Successive calls differ.

    Parameters
    ----------
    bit_generator : anything `default_rng` takes
        Only its seed is used: the bits are always Philox 4x64-10's.

    Notes
    -----
    The first call of `random(n)` gives what `numpy.random.Generator(numpy.random.Philox(seed)).random(n)` gives; call
    number c what that gives from counter (0, 0, 0, c) on. Other distributions agree with NumPy's in law, not in value.

    References
    ----------
    .. [1] J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """

    def __init__(self, bit_generator: Any = None) -> None:
        self._stream = bit_generator if isinstance(bit_generator, Stream) else Stream(bit_generator)

    @property
    def bit_generator(self) -> Any:
        """A numpy Philox with this generator's key, at the start of its first call's stream."""
        return np.random.Philox(key=np.array(self._stream.key, np.uint64))

    def spawn(self, n_children: int) -> list[Generator]:
        """Independent generators, by `numpy.random.SeedSequence.spawn`."""
        return [Generator(s) for s in self._stream.spawn(n_children)]

    def __repr__(self) -> str:
        return f"Generator(Philox, {self._stream.calls} calls)"

    def __reduce__(self) -> Any:
        return Generator, (self._stream,)

    def random(self, size: Any = None, dtype: Any = float, out: Any = None, chunks: Any = "auto") -> Array:
        """Uniform on [0, 1), float64 or float32; element i is word (half word) i of the stream."""
        return self._typed("random", (), size, dtype, out, chunks)

    def standard_normal(self, size: Any = None, dtype: Any = float, out: Any = None, chunks: Any = "auto") -> Array:
        """Normal with mean 0 and deviation 1, float64 or float32."""
        return self._typed("standard_normal", (), size, dtype, out, chunks)

    def standard_exponential(self, size: Any = None, dtype: Any = float, method: str = "zig", out: Any = None,
                             chunks: Any = "auto") -> Array:
        """Exponential with mean 1, float64 or float32; `method` is "zig" or "inv"."""
        draws.check("standard_exponential", (), (("dtype", dtype), ("method", method)))
        return _deliver(draws.drawn(self._stream, "standard_exponential", (method,), _size(size, out), chunks, dtype), out)

    def standard_gamma(self, shape: Any, size: Any = None, dtype: Any = float, out: Any = None,
                       chunks: Any = "auto") -> Array:
        """Gamma with scale 1, float64 or float32."""
        if draws.is_number(shape):
            return self._typed("standard_gamma", (float(shape),), size, dtype, out, chunks)
        return _deliver(draws.distribution(self._stream, "standard_gamma", (shape,), _size(size, out), chunks, dtype), out)

    def _typed(self, method: str, params: tuple[Any, ...], size: Any, dtype: Any, out: Any, chunks: Any) -> Array:
        draws.check(method, params, (("dtype", dtype),))
        return _deliver(draws.drawn(self._stream, method, params, _size(size, out), chunks, dtype), out)

    def integers(self, low: Any, high: Any = None, size: Any = None, dtype: Any = np.int64, endpoint: bool = False,
                 chunks: Any = "auto") -> Array:
        """Integers from `low` to below `high` (including it with `endpoint`); from 0 to below `low` with one bound."""
        if high is None:
            low, high = 0, low
        options = (("dtype", np.dtype(dtype).type), ("endpoint", bool(endpoint)))
        if draws.is_number(low) and draws.is_number(high):
            draws.check("integers", (low, high), options)
            return draws.drawn(self._stream, "integers", (int(low), int(high), bool(endpoint)), size, chunks, dtype)
        return draws.distribution(self._stream, "integers", (low, high), size, chunks, options=options)

    def bytes(self, length: int) -> builtins.bytes:
        """Random bytes, at once."""
        return self._stream.numpy_generator().bytes(length)


def _size(size: Any, out: Any) -> Any:
    return out.shape if size is None and out is not None else size


def _deliver(made: Array, out: Any) -> Array:
    """`made`, or the Array `out` with its values."""
    if out is None:
        return made
    if not isinstance(out, Array) or made.shape != out.shape or made.dtype != out.dtype:
        raise ValueError(f"out= must be an Array of shape {made.shape} and dtype {made.dtype}, as numpy asks; leave it "
                         "out, or give size= and dtype= that agree with it")
    out._expr = made.expr
    return out


def default_rng(seed: Any = None) -> Generator:
    """A Generator.

    Parameters
    ----------
    seed : None, int, sequence of ints, SeedSequence, BitGenerator, Generator
        None draws a seed from the operating system. A Generator of this library is passed through; of a numpy Generator
        or BitGenerator only the seed is used.
    """
    if isinstance(seed, Generator):
        return seed
    if isinstance(seed, np.random.Generator):
        return Generator(seed.bit_generator)
    if isinstance(seed, np.random.RandomState):
        return Generator(seed._bit_generator)
    return Generator(seed)


__all__ = ["Generator", "default_rng"]
