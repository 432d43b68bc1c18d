"""Batch: what a step does, as a few small int32 arrays; and Step: what a kernel reads off them, once for all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from nums_core.llm.cache.policy import NO_LIMIT, Limits
from nums_core.llm.cache.rotation import Rotation, Waves

# Slots whose codes are expanded at once in decoding (all those of a sequence are while its prompt is read).
TILE_SLOTS = 512


class Batch(NamedTuple):
    """A step: some new tokens of each of several sequences, whose rows lie one after another among the flat tokens.

    Rows from `starts[-1]` on are padding, and so are sequences without rows.

    Attributes
    ----------
    tables : int32, shape (n_seq, max_pages)
        Pages of each sequence, in order; -1 where there are no more.
    starts : int32, shape (n_seq + 1,)
        Rows of sequence i: starts[i] to starts[i + 1].
    past, held : int32, shape (n_seq,), tokens
        Processed before, and those of them that are still in the cache.
    limits : int32, shape (n_seq, 2), tokens
        Budget and recent window of each sequence.
    positions : int32, shape (n_rows,)
        True position of each row; 0 for padding.
    """

    tables: Any
    starts: Any
    past: Any
    held: Any
    limits: Any
    positions: Any

    @classmethod
    def of(cls, pages: Sequence[Sequence[int]], rows: Sequence[int], past: Sequence[int], limits: Sequence[Limits],
           extents: tuple[int | None, int | None, int | None] = (None, None, None)) -> Batch:
        """NumPy arrays, padded to `extents` (n_seq, max_pages, n_rows)."""
        least = (len(rows), max(map(len, pages), default=0), sum(rows))
        n_seq, max_pages, n_rows = (m if n is None else n for n, m in zip(extents, least, strict=True))
        if n_seq < least[0] or max_pages < least[1] or n_rows < least[2]:
            raise ValueError(f"a step with (n_seq, max_pages, n_rows) = {least} does not fit a batch of {extents}; take a "
                             "larger shape bucket, or less work")
        tables = np.full((n_seq, max_pages), -1, np.int32)
        for i, p in enumerate(pages):
            tables[i, :len(p)] = p
        starts = np.full(n_seq + 1, sum(rows), np.int32)
        starts[:len(rows) + 1] = np.cumsum([0, *rows])
        pasts, sizes = np.zeros(n_seq, np.int32), np.full((n_seq, 2), (NO_LIMIT, 0), np.int32)
        pasts[:len(rows)] = past
        sizes[:len(rows)] = np.array(limits, np.int32).reshape(-1, 2)
        positions = np.zeros(n_rows, np.int32)
        for start, n, first in zip(starts.tolist(), rows, past, strict=False):
            positions[start:start + n] = np.arange(first, first + n)
        return cls(tables, starts, pasts, np.minimum(pasts, sizes[:, 0]), sizes, positions)

    def cut(self, row: int) -> tuple[Batch, Batch]:
        """The step (of NumPy arrays) in two, which give the same one after the other: the first rows, and those from `row` on.

        A sequence that is in both drops nothing in the first, so that policies choose among the same tokens.
        """
        first, second = np.minimum(self.starts, row), np.maximum(self.starts - row, 0)
        n = np.diff(first)
        goes_on = (n > 0) & (np.diff(second) > 0)
        limits = np.where(goes_on[:, None], np.array((NO_LIMIT, 0), np.int32), self.limits)
        return (Batch(self.tables, first, self.past, self.held, limits, self.positions[:row]),
                Batch(self.tables, second, self.past + n, self.held + n, self.limits, self.positions[row:]))

    def arrays(self) -> Batch:
        """The same as lazy arrays: arguments of a jitted step."""
        from nums_core.array.creation import asarray

        return Batch(*map(asarray, self))


# -- slots ------------------------------------------------------------------------------------------------------------

class Piece(NamedTuple):
    """Some of a sequence's slots: `at` indexes the slot axis of a state, a slice where they lie in one run; they are numbers
    `start` to `stop` of the sequence (or of all sequences, one after another)."""

    at: Any
    start: int
    stop: int


def slots_of(pages: np.ndarray, n_slots: int, page_tokens: int) -> np.ndarray:
    """Where the first `n_slots` slots of a sequence lie: int, shape (n_slots,)."""
    used = pages[:-(-n_slots // page_tokens), None].astype(np.intp)
    return (used * page_tokens + np.arange(page_tokens)).reshape(-1)[:n_slots]


def pieces_of(slots: np.ndarray, first: int = 0, tile: int | None = None) -> list[Piece]:
    """`slots` in pieces of `tile` slots, or as one; the first is number `first`.

    Where pages lie does not change where pieces end, and so no bit of a result."""
    n, tile = len(slots), tile or len(slots)
    return [Piece(run_of(slots[a:a + tile]), first + a, first + min(a + tile, n)) for a in range(0, n, tile)]


def run_of(index: np.ndarray) -> Any:
    """`index` as a slice if it counts up by one: what that selects is a view."""
    first, last = int(index[0]), int(index[-1])
    up = last - first == len(index) - 1 and bool((np.diff(index) == 1).all())
    return slice(first, last + 1) if up else index


# -- what a kernel reads off a batch ----------------------------------------------------------------------------------

@dataclass
class Prompt:
    """A sequence with several new tokens.

    Attributes
    ----------
    rows : slice
        Among the flat tokens.
    past, held, n : int, tokens
        Processed before, held before, new.
    slots : ndarray, shape (held + n,)
        Held ones, then those of the newcomers.
    """

    rows: slice
    past: int
    held: int
    n: int
    limits: Limits
    slots: np.ndarray

    @property
    def seen(self) -> int:
        return self.past + self.n


@dataclass
class Decoding:
    """Sequences with one new token each. Their slots, the new one last, stand one after another in one line of columns.

    Attributes
    ----------
    rows : slice or ndarray, shape (n,)
        Among the flat tokens.
    n : int, sequences
    past, held : int arrays, shape (n,)
    limits : int32 ndarray, shape (n, 2)
    slots : ndarray, shape (columns,)
    starts : ndarray, shape (n,)
        First column of each sequence.
    """

    rows: Any
    n: int
    past: np.ndarray
    held: np.ndarray
    limits: np.ndarray
    slots: np.ndarray
    starts: np.ndarray
    tile: int | None

    @cached_property
    def pieces(self) -> list[list[Piece]]:
        """Columns of each sequence, as they are read together."""
        return [pieces_of(self.slots[a:b], a, self.tile) for a, b in pairwise(self.bounds.tolist())]

    @cached_property
    def bounds(self) -> np.ndarray:
        """First column of each sequence, and the end: int64, shape (n + 1,)."""
        return np.append(self.starts, len(self.slots)).astype(np.int64)

    @cached_property
    def at(self) -> Any:
        """Index of all columns' slots: a slice where they lie in one run."""
        return run_of(self.slots)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Columns of each sequence."""
        return self.held + 1

    @cached_property
    def newest(self) -> np.ndarray:
        """Column of each newcomer."""
        return self.starts + self.held

    @cached_property
    def at_newest(self) -> Any:
        """Index of the newcomers' slots, as `at`."""
        return run_of(self.slots[self.newest])

    @cached_property
    def full(self) -> np.ndarray:
        """Sequences that must drop one: bool, shape (n,)."""
        return self.lengths > self.limits[:, 0]

    @cached_property
    def n_full(self) -> int:
        return int(self.full.sum())

    @cached_property
    def recent_from(self) -> np.ndarray:
        """Position from which tokens are recent, for each column."""
        return self.spread(self.past + 1 - self.limits[:, 1])

    @cached_property
    def number(self) -> np.ndarray:
        """Number of each column in its sequence."""
        return np.arange(len(self.slots)) - self.spread(self.starts)

    def spread(self, x: np.ndarray) -> np.ndarray:
        """(..., n) to (..., columns): each sequence's value for all its columns."""
        return x if self.n == 1 else np.repeat(x, self.lengths, axis=-1)


class Step:
    """A batch taken apart: sequences that decode, and prompts.

    Attributes
    ----------
    n_rows : int
        Without padding.
    positions : ndarray, shape (n_rows,)
        True position of each row.
    decoding : Decoding or None
    prompts : list of Prompt
    """

    def __init__(self, tables: np.ndarray, starts: np.ndarray, past: np.ndarray, held: np.ndarray, limits: np.ndarray,
                 page_tokens: int, tile: int | None) -> None:
        rows = np.diff(starts)
        many = (rows > 1) | ((rows == 1) & (held > limits[:, 0]))  # also the last row of a prompt, cut off from the others
        slots = {i: slots_of(tables[i], int(held[i] + rows[i]), page_tokens) for i in np.flatnonzero(rows).tolist()}
        self.n_rows, self._waves = int(starts[-1]), dict[Rotation, Waves]()
        self.positions = np.concatenate([np.arange(past[i], past[i] + rows[i]) for i in slots] or [np.zeros(0, int)])
        self.prompts = [Prompt(slice(int(starts[i]), int(starts[i + 1])), int(past[i]), int(held[i]), int(rows[i]),
                               Limits(*limits[i].tolist()), slots[i]) for i in slots if many[i]]
        one = np.flatnonzero((rows == 1) & ~many)
        self.decoding: Decoding | None = None
        if len(one):
            first = np.concatenate(([0], np.cumsum(held[one] + 1)[:-1]))
            columns = np.concatenate([slots[i] for i in one.tolist()])
            past, held = past[one].astype(np.intp), held[one].astype(np.intp)
            self.decoding = Decoding(run_of(starts[one]), len(one), past, held, limits[one], columns, first, tile)


    def waves(self, rotation: Rotation) -> Waves:
        """The waves of all rows; layers share them."""
        found = self._waves.get(rotation)
        if found is None:
            found = self._waves[rotation] = rotation.waves(self.positions)
        return found


_remembered: dict[Any, Step] = {}
MOST_REMEMBERED = 4  # the parts of the step that runs, and of the one before


def step_of(tables: np.ndarray, starts: np.ndarray, past: np.ndarray, held: np.ndarray, limits: np.ndarray,
            page_tokens: int, tile: int | None) -> Step:
    """The step that these arrays describe. All layers ask for the same ones: the last few are remembered, by their contents."""
    key = (tables.shape, *(x.tobytes() for x in (tables, starts, past, held, limits)), page_tokens, tile)
    step = _remembered.get(key)
    if step is None:
        step = Step(tables, starts, past, held, limits, page_tokens, tile)
        for old in list(_remembered)[:1 - MOST_REMEMBERED]:
            _remembered.pop(old, None)
        _remembered[key] = step
    return step
