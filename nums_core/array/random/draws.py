"""From a call such as `normal(0, 1, size)` to a lazy array: sizes, chunks, parameters, streams."""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nums_core import config
from nums_core.array.array import Array, Scalar, as_expr
from nums_core.expr import build
from nums_core.expr import grid as grids
from nums_core.expr.node import Expr, Source
from nums_core.runtime.devices.random import TILE, Draw, Frozen, RandomSource, Varying, stream

INTEGERS = frozenset({"binomial", "geometric", "hypergeometric", "logseries", "multinomial", "multivariate_hypergeometric",
                      "negative_binomial", "poisson", "zipf"})

_sources: weakref.WeakValueDictionary[tuple[Draw, tuple[int, ...]], Source] = weakref.WeakValueDictionary()


class Stream:
    """A seed and how many calls it has served. Safe to use from several threads.

    Attributes
    ----------
    key : two 64-bit words
        Of Philox; those that `numpy.random.Philox(seed)` would have.
    calls : int
    """

    def __init__(self, seed: Any = None) -> None:
        self.sequence, self.key = _sequence_and_key(seed)
        self.calls = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        """The number of this call."""
        with self._lock:
            self.calls += 1
            return self.calls - 1

    def spawn(self, n: int) -> list[Stream]:
        return [Stream(s) for s in self.sequence.spawn(n)]

    def numpy_generator(self) -> Any:
        """numpy's Generator on the stream of the next call, for what is small and wanted at once."""
        return np.random.Generator(np.random.Philox(key=np.array(self.key, np.uint64),
                                                    counter=np.array([0, 0, 0, self.next()], np.uint64)))

    def __reduce__(self) -> Any:
        return _restored, (self.sequence, self.key, self.calls)


def _restored(sequence: Any, key: tuple[int, int], calls: int) -> Stream:
    made = Stream(sequence)
    made.key, made.calls = key, calls
    return made


def _sequence_and_key(seed: Any) -> tuple[Any, tuple[int, int]]:
    if isinstance(seed, np.random.BitGenerator):
        sequence = getattr(seed, "seed_seq", None)
        if isinstance(seed, np.random.Philox):
            key = [int(w) for w in seed.state["state"]["key"]]
            if not isinstance(sequence, np.random.SeedSequence):
                sequence = np.random.SeedSequence(key)
            return sequence, (key[0], key[1])
        if not isinstance(sequence, np.random.SeedSequence):
            sequence = np.random.SeedSequence([int(w) for w in seed.random_raw(4)])
        seed = sequence
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    first, second = sequence.generate_state(2, np.uint64)
    return sequence, (int(first), int(second))


def shape_of(size: Any) -> tuple[int, ...]:
    """`size` as a shape; () for None."""
    if size is None:
        return ()
    try:
        shape = tuple(map(operator.index, size)) if np.iterable(size) else (operator.index(size),)
    except TypeError:
        raise TypeError(f"expected a sequence of integers or a single integer, got {size!r} as size=") from None
    if any(n < 0 for n in shape):
        raise ValueError(f"negative dimensions are not allowed; size={size!r} must be zero or more along every axis")
    return shape


def drawn(source: Stream, method: str, params: tuple[Any, ...], size: Any, chunks: Any = "auto", dtype: Any = None,
          width: tuple[int, ...] = ()) -> Array:
    """The array that one call draws; `params` are numbers (already checked) and Frozen arrays."""
    dtype = np.dtype(dtype if dtype is not None else np.int64 if method in INTEGERS else float)
    shape = shape_of(size)
    spec = Draw(method, params, dtype.str, source.key, source.next(), width)
    found = _sources.get((spec, shape))
    if found is None:
        found = _sources[spec, shape] = Source("reader", RandomSource(spec, shape), (*shape, *width), dtype)
    return Array(build.leaf(found, _chunks(chunks, shape, width, dtype)))


def _chunks(chunks: Any, shape: tuple[int, ...], width: tuple[int, ...], dtype: np.dtype) -> grids.Chunks:
    if width and isinstance(chunks, (tuple, list)) and len(chunks) == len(shape):
        chunks = (*chunks, *(-1,) * len(width))
    return grids.normalize(chunks, (*shape, *width), dtype)


def words(source: Stream, shape: Sequence[int], chunks: Any = "auto") -> Array:
    """Raw 64-bit words."""
    return drawn(source, "words", (), tuple(shape), chunks, np.uint64)


# -- parameters -------------------------------------------------------------------------------------------------------

def is_number(x: Any) -> bool:
    return isinstance(x, Scalar) or (isinstance(x, np.ndarray) and x.ndim == 0)


def distribution(source: Stream, method: str, params: tuple[Any, ...], size: Any, chunks: Any, dtype: Any = None,
                 options: tuple[tuple[str, Any], ...] = ()) -> Array:
    """Draws from a distribution of one number whose parameters are numbers or arrays.

    `options` are keywords of numpy's method that are not parameters. A `dtype` that numpy's method does not have is
    made by casting.
    """
    if all(map(is_number, params)):
        params = tuple(p[()] if isinstance(p, np.ndarray) else p for p in params)
        check(method, params, options)
        made = drawn(source, method, params, size, chunks)
    else:
        made = _with_arrays(source, method, params, size, chunks, options)
    return made if dtype is None else made.astype(dtype)


def check(method: str, params: tuple[Any, ...], options: tuple[tuple[str, Any], ...] = ()) -> Any:
    """Let NumPy judge the parameters: draws one number, raises NumPy's errors."""
    generator = stream({"bit_generator": "Philox", "state": {"counter": [0] * 4, "key": [0, 0]}, "buffer": (0,) * 4,
                        "buffer_pos": 4, "has_uint32": 0, "uinteger": 0})
    return getattr(generator, method)(*params, size=1, **dict(options))


def _with_arrays(source: Stream, method: str, params: tuple[Any, ...], size: Any, chunks: Any,
                 options: tuple[tuple[str, Any], ...]) -> Array:
    given: list[Any] = [p[()] if isinstance(p, np.ndarray) and p.ndim == 0 else p if is_number(p) else as_expr(p)
                        for p in params]
    exprs = [p for p in given if isinstance(p, Expr)]
    shape = _broadcast([e.shape for e in exprs], size)
    if chunks == "auto":
        chunks = next((e.chunks for e in exprs if e.shape == shape), "auto")
    if method in STANDARD:
        _check_scales(method, params)
        like, transform = STANDARD[method]
        standard = drawn(source, *like, shape, chunks)
        return transform(standard, *(Array(p) if isinstance(p, Expr) else p for p in given))
    return varying(source, method, given, shape, chunks, options)


def _broadcast(shapes: Sequence[tuple[int, ...]], size: Any) -> tuple[int, ...]:
    shape = build.broadcast_shape(shapes)
    if size is None:
        return shape
    wanted = shape_of(size)
    back = len(wanted) - len(shape)
    if back < 0 or any(n not in (1, m) for n, m in zip(shape, wanted[back:], strict=True)):
        raise ValueError(f"Output size {wanted} is not compatible with broadcast dimensions of inputs {shape}; give "
                         "size= the shape that the parameters broadcast to, with more axes in front if wanted")
    return wanted


def _check_scales(method: str, params: tuple[Any, ...]) -> None:
    """NumPy's own complaint about a negative scale, where the values are at hand (lazy parameters are taken on trust)."""
    if method != "uniform" and isinstance(params[-1], (np.ndarray, list, tuple)) and np.size(params[-1]):
        check(method, (*(0.0,) * (len(params) - 1), float(np.min(params[-1]))))


# Families that are a function of a standard variate: with arrays of parameters they are arithmetic, which fuses with
# what follows. (method and parameters of the standard variate, transformation)
STANDARD: dict[str, tuple[tuple[str, tuple[Any, ...]], Callable[..., Array]]] = {
    "normal": (("standard_normal", ()), lambda z, loc, scale: loc + scale * z),
    "uniform": (("random", ()), lambda u, low, high: low + (high - low) * u),
    "exponential": (("standard_exponential", ("zig",)), lambda e, scale: scale * e),
    "gumbel": (("gumbel", (0.0, 1.0)), lambda g, loc, scale: loc + scale * g),
    "laplace": (("laplace", (0.0, 1.0)), lambda z, loc, scale: loc + scale * z),
    "logistic": (("logistic", (0.0, 1.0)), lambda z, loc, scale: loc + scale * z),
    "lognormal": (("standard_normal", ()), lambda z, mean, sigma: _exp(mean + sigma * z)),
    "rayleigh": (("rayleigh", (1.0,)), lambda r, scale: scale * r),
}


def _exp(x: Array) -> Array:
    from nums_core.array.elementwise import exp

    return exp(x)


def varying(source: Stream, method: str, params: Sequence[Any], shape: tuple[int, ...], chunks: Any,
            options: tuple[tuple[str, Any], ...] = ()) -> Array:
    """Draws whose parameters differ from element to element: the flat array is cut at multiples of a tile, so that the
    samplers of a tile see all its parameters however the result is cut. Every tile has a key of its own, itself drawn."""
    dtype = np.dtype(dict(options).get("dtype", np.int64 if method in INTEGERS else float))
    n = int(np.prod(shape, dtype=np.int64))
    size = max(1, config.get().block_bytes // (8 * TILE)) * TILE
    flat = grids.uniform(n, size)
    arrays = [build.rechunk(_ravelled(p, shape), (flat,)) for p in params if isinstance(p, Expr)]
    tiles = tuple(-(-c // TILE) for c in flat)
    keys = words(source, (sum(tiles), 2), (tiles, -1)).expr
    function = Varying(method, tuple(None if isinstance(p, Expr) else p for p in params), options, dtype.str)
    made = build.blockmap(function, [keys, *arrays], [("n", "w"), *[("n",)] * len(arrays)], ("n",), (n,), dtype, (flat,),
                          label=method, flop=RandomSource.read_flop)
    wanted = grids.normalize(chunks, shape, dtype)
    whole = Array(made) if len(shape) == 1 else Array(made).reshape(shape)
    return Array(build.rechunk(whole.expr, wanted))


def _ravelled(p: Expr, shape: tuple[int, ...]) -> Expr:
    if p.shape != shape:
        cuts = grids.normalize("auto", shape, p.dtype)
        back = len(shape) - p.ndim
        p = build.broadcast_to(p, shape, tuple(p.chunks[i - back] if i >= back and p.shape[i - back] == n else c
                                               for i, (n, c) in enumerate(zip(shape, cuts, strict=True))))
    return p if p.ndim == 1 else Array(p).ravel().expr


__all__ = ["Frozen", "Stream", "check", "distribution", "drawn", "is_number", "shape_of", "varying", "words"]
