"""Random numbers by position: an element's value depends on the seed, the call and its place in C order alone.

All bits come from Philox 4x64-10, a function of a 128-bit key (the seed) and a 256-bit counter. The top word of the counter
is the number of the call. Below it there are two ways to use the rest:

    by word   doubles from the unit interval take one 64-bit word an element: element `i` is word `i` of the stream. So
              the first call of `default_rng(s).random(n)` gives what `numpy.random.Generator(numpy.random.Philox(s))`
              gives.
    by tile   samplers that take an unknown number of words (ziggurat, rejection) run on virtual tiles of `TILE` elements
              in C order, each with a stream of its own (the tile's number + 1 in the third word). A block computes the
              tiles that it touches, each no further than it needs.

Source     J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; samplers are NumPy's.
Checked    tests/array/test_random.py: against NumPy, and that no two ways of cutting differ.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

# Setting a stream up takes 1.5 us, an element 10-60 ns: below ~500 the set-up shows, above ~4000 blocks that cut rows waste.
TILE = 1024
# A block is made in parts where the elements drawn and thrown away would fill more than this many elements of memory.
SCRATCH = 2**22
_WORD = 2**64 - 1

Sampler = Callable[[Any, int], np.ndarray]


class Frozen(NamedTuple):
    """A small array as a parameter: hashable and comparable."""

    data: bytes
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, x: Any) -> Frozen:
        x = np.ascontiguousarray(x)
        return cls(x.tobytes(), x.dtype.str, x.shape)

    def array(self) -> np.ndarray:
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Draw:
    """What is drawn: a sampler with its parameters, and the stream it reads.

    Attributes
    ----------
    method : str
        A row of `SAMPLERS`, or a method of `numpy.random.Generator` that takes its parameters and `size`.
    params : tuple of numbers and Frozen
    dtype : str
    key : two words
    call : int
    width : tuple of int
        Shape of one draw: () but for vectors, as of `multinomial`.
    """

    method: str
    params: tuple[Any, ...]
    dtype: str
    key: tuple[int, int]
    call: int
    width: tuple[int, ...] = ()

    @property
    def by_word(self) -> bool:
        return self.method in BY_WORD

    @cached_property
    def per_tile(self) -> int:
        """Draws in a tile: fewer where a draw is long."""
        return max(1, TILE // max(math.prod(self.width), 1))

    @cached_property
    def sampler(self) -> Sampler:
        params = tuple(p.array() if isinstance(p, Frozen) else p for p in self.params)
        if self.method in SAMPLERS:
            return SAMPLERS[self.method](self, *params)
        method = self.method
        return lambda generator, n: getattr(generator, method)(*params, size=n)

    def __reduce__(self) -> Any:  # without the cached sampler
        return Draw, (self.method, self.params, self.dtype, self.key, self.call, self.width)

    def fill(self, start: int, out: np.ndarray) -> None:
        """Write draws `start, start + 1, ...` to `out`, contiguous, shape (n, *width)."""
        (self._fill_words if self.by_word else self._fill_tiles)(start, out)

    def _fill_words(self, start: int, out: np.ndarray) -> None:
        skip, word = 0, start
        if self.dtype == "<f4":  # two an element's word
            word, skip = divmod(start, 2)
        generator = stream(_state(self.key, [word // 4 & _WORD, word // 4 >> 64, 0, self.call]))
        if word % 4:
            generator.bit_generator.random_raw(word % 4, output=False)
        out[...] = self.sampler(generator, len(out) + skip)[skip:]

    def _fill_tiles(self, start: int, out: np.ndarray) -> None:
        counter = [0, 0, 0, self.call]
        state, sampler, per_tile = _state(self.key, counter), self.sampler, self.per_tile
        tile, skip = divmod(start, per_tile)
        done = 0
        while done < len(out):
            count = min(per_tile - skip, len(out) - done)
            counter[2] = tile + 1
            out[done:done + count] = sampler(stream(state), skip + count)[skip:]
            done, tile, skip = done + count, tile + 1, 0


def _state(key: Sequence[int], counter: list[int]) -> dict[str, Any]:
    """The state of NumPy's Philox at a place of a stream."""
    return {"bit_generator": "Philox", "state": {"counter": counter, "key": key}, "buffer": (0, 0, 0, 0),
            "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}


_own = threading.local()


def stream(state: dict[str, Any]) -> Any:
    """This thread's numpy Generator, at `state`; good until the next call. (A new one would take 20 us.)"""
    if not hasattr(_own, "generator"):
        _own.generator = np.random.Generator(np.random.Philox(key=0))
    _own.generator.bit_generator.state = state
    return _own.generator


# -- samplers: rows for what is not simply a method of numpy's Generator ----------------------------------------------

def _typed(method: str) -> Callable[..., Sampler]:
    """Methods that draw in the wanted dtype."""
    def make(draw: Draw, *params: Any) -> Sampler:
        dtype = np.dtype(draw.dtype).type
        return lambda generator, n: getattr(generator, method)(*params, size=n, dtype=dtype)
    return make


def _exponential(draw: Draw, how: str) -> Sampler:
    dtype = np.dtype(draw.dtype).type
    return lambda generator, n: generator.standard_exponential(n, dtype, how)


def _integers(draw: Draw, low: Any, high: Any, endpoint: bool) -> Sampler:
    dtype = np.dtype(draw.dtype).type
    return lambda generator, n: generator.integers(low, high, n, dtype, endpoint)


def _words(draw: Draw) -> Sampler:
    return lambda generator, n: generator.bit_generator.random_raw(n)


def _normal_vectors(draw: Draw, mean: np.ndarray, factor: np.ndarray) -> Sampler:
    """mean + factor z. Always a whole tile, without BLAS: the bits of a row must not depend on how many there are."""
    whole = draw.per_tile

    def sample(generator: Any, n: int) -> np.ndarray:
        z = generator.standard_normal((whole, factor.shape[1]))
        return (np.einsum("nj,kj->nk", z, factor) + mean)[:n]
    return sample


def _hypergeometric_vectors(draw: Draw, colors: np.ndarray, nsample: int, how: str) -> Sampler:
    return lambda generator, n: generator.multivariate_hypergeometric(colors, nsample, n, how)


BY_WORD = frozenset({"random", "uniform", "words"})
SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "random": _typed("random"),
    "words": _words,
    "standard_normal": _typed("standard_normal"),
    "standard_gamma": _typed("standard_gamma"),
    "standard_exponential": _exponential,
    "integers": _integers,
    "multivariate_normal": _normal_vectors,
    "multivariate_hypergeometric": _hypergeometric_vectors,
}


class RandomSource:
    """An array of random numbers that exists nowhere: blocks are drawn when they are read.

    `source[slices]` draws what the slices (of positive step) cover and nothing else, but for the beginnings of tiles.
    """

    read_flop = 200.0  # an element takes about as long as that many

    def __init__(self, draw: Draw, shape: tuple[int, ...]) -> None:
        self.draw, self.shape, self.dtype = draw, (*shape, *draw.width), np.dtype(draw.dtype)
        self.read_label = draw.method

    def read_price(self, chunks: Sequence[Sequence[int]], step: Sequence[int]) -> float:
        """About how many numbers are drawn where the array is read in these blocks."""
        n = self.ndim
        spans = [range(max(c, default=0) * s) for c, s in zip(chunks[:n], step[:n], strict=True)]
        k, inner = _whole_axes(self.shape[:n], spans)
        runs = math.prod(max(c, default=0) for c in chunks[:max(k - 1, 0)])
        drawn = runs * ((len(spans[k - 1]) if k else 1) * inner + TILE / 2)
        return drawn * math.prod(map(len, chunks)) * math.prod(self.draw.width)

    @property
    def ndim(self) -> int:
        """Axes of the draws, those within a draw left out."""
        return len(self.shape) - len(self.draw.width)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self.read_into(index)

    def read_into(self, index: tuple[slice, ...], out: np.ndarray | None = None) -> np.ndarray:
        """The numbers in a box, written to `out` where that is given."""
        ranges = [range(*s.indices(n)) for s, n in zip(index, self.shape, strict=True)]
        if out is None:
            out = np.empty([len(r) for r in ranges], self.dtype)
        if out.size:
            self._box(ranges[:self.ndim], ranges[self.ndim:], out)
        return out

    def _box(self, ranges: list[range], rest: list[range], out: np.ndarray) -> None:
        shape = self.shape[:len(ranges)]
        k, inner = _whole_axes(shape, ranges)
        run = ranges[k - 1][-1] - ranges[k - 1][0] + 1 if k else 1
        before = ranges[:max(k - 1, 0)]
        n_runs = math.prod(map(len, before))
        width = self.draw.width
        if n_runs * run * inner * math.prod(width) > max(SCRATCH, 2 * out.size) and _halve(self, ranges, rest, out):
            return
        full = (*map(len, before), *((run,) if k else ()), *shape[k:], *width)
        straight = out.shape == full and out.flags.c_contiguous and out.dtype == self.dtype
        drawn = out if straight else np.empty(full, self.dtype)
        lines = drawn.reshape(n_runs, run * inner, *width)
        for line, start in zip(lines, _starts(shape, before, ranges[k - 1][0] * inner if k else 0, inner), strict=True):
            self.draw.fill(start, line)
        if not straight:
            kept = [slice(None, None, r.step) for r in ranges[k - 1:k]]
            kept += [slice(r.start, r.stop, r.step) for r in (*ranges[k:], *rest)]
            out[...] = drawn[(*[slice(None)] * len(before), *kept)]


def _whole_axes(shape: tuple[int, ...], ranges: Sequence[range]) -> tuple[int, int]:
    """Axes from `k` on are drawn whole, as that wastes less than a new stream costs; with their number of elements."""
    k, inner = len(shape), 1
    while k > 1:
        r = ranges[k - 1]
        if (shape[k - 1] - (r[-1] - r[0] + 1 if r else 0)) * inner > TILE:
            break
        k -= 1
        inner *= shape[k]
    return k, inner


def _starts(shape: tuple[int, ...], before: Sequence[range], first: int, inner: int) -> list[int]:
    """Position of the first draw of each run."""
    pitch = [math.prod(shape[axis + 1:]) for axis in range(len(before))]
    return [first + sum(i * p for i, p in zip(at, pitch, strict=True)) for at in itertools.product(*before)]


def _halve(source: RandomSource, ranges: list[range], rest: list[range], out: np.ndarray) -> bool:
    """Draw the two halves of a box one after the other, cut at the first axis that can be; False if none can."""
    for axis, r in enumerate(ranges):
        if len(r) > 1:
            middle = len(r) // 2
            here = [slice(None)] * axis
            source._box([*ranges[:axis], r[:middle], *ranges[axis + 1:]], rest, out[(*here, slice(None, middle))])
            source._box([*ranges[:axis], r[middle:], *ranges[axis + 1:]], rest, out[(*here, slice(middle, None))])
            return True
    return False


# -- parameters that are arrays ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Varying:
    """Draws whose parameters differ from element to element, a tile at a time (a function of blocks, for `blockmap`).

    Attributes
    ----------
    method : str
        Of numpy's Generator.
    params : tuple
        A number, or None where the parameter is an array.
    options : tuple of (name, value)
    dtype : str
    """

    method: str
    params: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]
    dtype: str

    def __call__(self, keys: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
        """`keys` has a row of two words a tile; each array of parameters one number an element."""
        out = np.empty(len(arrays[0]), self.dtype)
        options = dict(self.options)
        for t, key in enumerate(keys.tolist()):
            part = slice(t * TILE, min((t + 1) * TILE, len(out)))
            given = iter(arrays)
            params = [next(given)[part] if p is None else p for p in self.params]
            out[part] = getattr(stream(_state(key, [0, 0, 0, 0])), self.method)(*params, **options)
        return out
