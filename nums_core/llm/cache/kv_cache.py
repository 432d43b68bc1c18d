"""KVCache: paged keys and values of every layer, for many sequences, under one policy.

    cache = KVCache(config, H2O(heavy=0.1, recent=0.1), n_pages=1024, page_tokens=16, bits=32)
    cache.allocate("a", n_tokens=len(prompt))                 # pages for a prompt; OutOfPages changes nothing
    work = [("a", 128), ("b", 1)]                             # the next step: how many new tokens of whom
    for seq_id, n in work:
        cache.extend(seq_id, cache.past(seq_id) + n)          # pages for them; `batch` does so too
    batch = cache.batch(work, n_seq=8, max_pages=64, n_rows=256)   # padded to a shape bucket; NumPy int32
    logits, cache.states = step(model, cache.states, tokens, *batch.arrays())       # jitted, states donated
    cache.advance(work)                                       # they are in the cache now; pages not needed are freed
    cache.fork("a", "c", n_tokens=96)                         # another sequence that begins with the same tokens
    cache.free("a")

Inside the step: `attend = CacheAttend(cache.spec, states, Batch(*batch_arrays))`, `model.hidden(tokens, attend=attend,
positions=batch.positions)`, then `attend.states` are the new states. `spec` is static and hashable.

Memory. A layer's state is a tuple of arrays over all slots of all pages, (kv_heads, n_pages * page_tokens, ...): keys, values
(each one array, or codes and scales), and, for policies that evict, true positions (int32) and scores (float32). A
sequence's held tokens fill its first slots without a gap, for every head; newcomers are written behind them, and
after a policy has chosen what to drop, they move into the slots that became free. So page tables are shared by all heads and
layers, and pages past the budget go back to the pool as a whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nums_core.array.array import Array
from nums_core.array.creation import asarray, zeros
from nums_core.errors import ConfigError
from nums_core.expr import build
from nums_core.llm.cache.batch import Batch, slots_of
from nums_core.llm.cache.page import OutOfPages, PagePool
from nums_core.llm.cache.policy import Limits, Policy
from nums_core.llm.cache.quantized import codec_of
from nums_core.llm.cache.spec import CacheSpec
from nums_core.session import jit, keep

# Room to grow that is left behind a new sequence as long as there is other space: its pages then lie in one run.
GROWTH_TOKENS = 256


@dataclass
class _Held:
    """What the cache knows of one sequence.

    Attributes
    ----------
    past : int, tokens
        Processed so far; the true position of the next one.
    pages : list of int
    """

    limits: Limits
    pages: list[int] = field(default_factory=list)
    past: int = 0

    @property
    def held(self) -> int:
        """Tokens that every head holds."""
        return min(self.past, self.limits.budget)


class Usage(NamedTuple):
    """Tokens of a sequence: seen so far, held, and evicted from each head of each layer."""

    seen: int
    held: int
    evicted: int


class KVCache:
    """Keys and values of many sequences in pages.

    Parameters
    ----------
    config : ModelConfig
    policy : Policy
        `Full()`, `Window(...)`, `H2O(...)`, `TOVA(...)`: what each head keeps.
    n_pages : int
    page_tokens : int, tokens
    bits : 32, 16, 8 or 4
        Of a cached number; 8 and 4 are quantised in groups along `head_dim`.
    dtype : "float32"
        Of the arithmetic.
    chunk_tokens : int, tokens, optional
        Most new tokens of one sequence in a step; `allocate` then takes no more pages than the policy can use.

    Attributes
    ----------
    spec : CacheSpec
    states : tuple (a layer each) of tuple of Array
        Whoever runs a step puts the new ones here.
    n_evicted : int
        Tokens that each head of each layer has dropped so far, over all sequences.

    Raises
    ------
    ConfigError
    """

    def __init__(self, config: Any, policy: Policy, n_pages: int, page_tokens: int = 16, bits: int = 32,
                 dtype: str = "float32", chunk_tokens: int | None = None) -> None:
        if n_pages < 1 or page_tokens < 1:
            raise ConfigError(f"a cache of {n_pages} pages of {page_tokens} tokens holds nothing; both must be at least 1")
        if dtype != "float32":
            raise ConfigError(f"dtype is {dtype!r}; attention is computed in float32. To store fewer bytes, use bits=16, 8 or "
                              "4")
        self.spec = CacheSpec(policy, codec_of(bits, config.head_dim), config.n_heads, config.n_kv_heads, config.head_dim,
                              page_tokens, getattr(config, "window", None), config.head_dim ** -0.5)
        self.policy, self.page_tokens, self.chunk_tokens = policy, page_tokens, chunk_tokens
        self.n_layers, self.pool = config.n_layers, PagePool(n_pages)
        self.sequences: dict[Hashable, _Held] = {}
        self.n_evicted = 0
        self._layout = self.spec.layout(n_pages * page_tokens)
        self.states: tuple[tuple[Array, ...], ...] = self._empty()
        self._copy = jit(_copied, donate=(0,))

    def _empty(self) -> tuple[tuple[Array, ...], ...]:
        """Zeros, kept where they will be changed; equal expressions would be one array, so each is made by itself."""
        return tuple(tuple(Array(keep([zeros(shape, dtype=dtype, chunks=-1).expr])[0]) for shape, dtype in self._layout)
                     for _ in range(self.n_layers))

    # -- pages --------------------------------------------------------------------------------------------------------

    def allocate(self, seq_id: Hashable, n_tokens: int, *, prompt_tokens: int | None = None,
                 expected_tokens: int | None = None, chunk_tokens: int | None = None) -> None:
        """Begin a sequence, with pages for its first `n_tokens` tokens (fewer where the policy evicts in between).

        Parameters
        ----------
        prompt_tokens : int, optional
            What budgets that are fractions are fractions of. Default: `n_tokens`.
        expected_tokens : int, optional
            How long it may become: others leave it room while they can. Never refused for.
        chunk_tokens : int, optional
            Most of its tokens in one step. Default: that of the cache, or all.

        Raises
        ------
        OutOfPages
            Nothing has changed then.
        ValueError
            `seq_id` is in use.
        """
        if seq_id in self.sequences:
            raise ValueError(f"sequence {seq_id!r} is in the cache already; free() it first, or choose another name")
        limits = self.policy.limits(n_tokens if prompt_tokens is None else prompt_tokens)
        expected = n_tokens + GROWTH_TOKENS if expected_tokens is None else expected_tokens
        chunk = min(n_tokens, chunk_tokens or self.chunk_tokens or n_tokens)
        n_slots, want = (limits.slots(n, chunk) for n in (n_tokens, max(n_tokens, expected)))
        pages = self.pool.take(self._pages(n_slots), want=self._pages(want))
        self.sequences[seq_id] = _Held(limits, pages)

    def extend(self, seq_id: Hashable, n_tokens: int) -> None:
        """Pages so that a next step may bring the sequence to `n_tokens` tokens. Pages it shares with others and would
        write to become copies of its own.

        Raises
        ------
        OutOfPages
            Nothing has changed then.
        """
        s = self._find(seq_id)
        if n_tokens < s.past:
            raise ValueError(f"sequence {seq_id!r} has {s.past} tokens already, more than {n_tokens}; extend() takes the "
                             "number of all tokens after the step")
        n_slots = s.held + n_tokens - s.past
        shared = self._shared(s, n_slots, n_tokens)
        missing = max(self._pages(n_slots) - len(s.pages), 0)
        if missing or shared:
            pages = self.pool.take(len(shared) + missing, after=s.pages[-1] if s.pages else None)
            self._replace(s, shared, pages[:len(shared)])
            s.pages += pages[len(shared):]

    def _shared(self, s: _Held, n_slots: int, n_tokens: int) -> list[int]:
        """Which of a sequence's pages it would write to and does not own alone."""
        if n_tokens == s.past:
            return []
        anywhere = self.policy.scored or n_tokens > s.limits.budget
        first = 0 if anywhere else s.held // self.page_tokens
        return [k for k in range(first, min(len(s.pages), self._pages(n_slots))) if self.pool.refs[s.pages[k]] > 1]

    def _replace(self, s: _Held, which: list[int], pages: list[int]) -> None:
        """Copy on write: pages number `which` of a sequence become `pages`, with the same contents."""
        if not which:
            return
        old = [s.pages[k] for k in which]
        self._copy_pages(old, pages)
        for k, page in zip(which, pages, strict=True):
            s.pages[k] = page
        self.pool.release(old)

    def _copy_pages(self, source: list[int], target: list[int]) -> None:
        pad = (1 << (len(source) - 1).bit_length()) - len(source)  # few shapes, few plans
        pairs = [asarray(np.array(p + [p[-1]] * pad, np.int32)) for p in (source, target)]
        self.states = self._copy(self.states, *pairs, self.page_tokens)

    def fork(self, parent: Hashable, child: Hashable, n_tokens: int | None = None) -> None:
        """Begin the sequence `child` with the first `n_tokens` tokens of `parent` (default: all): it shares their pages
        until one of the two writes to them.

        Raises
        ------
        ValueError
            `child` is in use, or the policy no longer holds just the first `n_tokens` tokens.
        OutOfPages
            Policies that change pages all the time copy them at once. Nothing has changed then.
        """
        s = self._find(parent)
        n = s.past if n_tokens is None else n_tokens
        if child in self.sequences:
            raise ValueError(f"sequence {child!r} is in the cache already; free() it first, or choose another name")
        if n > s.past or (n < s.past and (s.past > s.limits.budget or self.policy.scored)):
            raise ValueError(f"sequence {parent!r} has seen {s.past} tokens and holds {s.held} under {self.policy}; a fork at "
                             f"{n} tokens needs what the cache does not have: fork at {s.past}, or compute the prompt again")
        made = _Held(s.limits, s.pages[:self._pages(min(n, s.limits.budget))], n)
        self.pool.share(made.pages)
        try:
            if self.policy.scored and made.pages:
                self._replace(made, list(range(len(made.pages))), self.pool.take(len(made.pages)))
        except OutOfPages:
            self.pool.release(made.pages)
            raise
        self.sequences[child] = made

    def free(self, seq_id: Hashable) -> None:
        """End a sequence; pages that nobody shares go back to the pool."""
        s = self._find(seq_id)
        self.pool.release(s.pages)
        del self.sequences[seq_id]

    # -- steps --------------------------------------------------------------------------------------------------------

    def batch(self, work: Sequence[tuple[Hashable, int]], *, n_seq: int | None = None, max_pages: int | None = None,
              n_rows: int | None = None) -> Batch:
        """The arrays that describe a step in which each sequence gets some new tokens; pages for them are taken.

        Parameters
        ----------
        work : list of (seq_id, number of new tokens)
            Their rows lie in this order among the flat tokens of the step.
        n_seq, max_pages, n_rows : int, optional
            Extents to pad to; default: just what is needed (see `max_pages`).

        Raises
        ------
        OutOfPages
        ValueError
            It does not fit the extents, or names a sequence twice.
        """
        if len({seq_id for seq_id, _ in work}) < len(work):
            raise ValueError("a sequence stands twice in one step; give all its new tokens at once")
        for seq_id, n in work:
            self.extend(seq_id, self.past(seq_id) + n)
        found = [self._find(seq_id) for seq_id, _ in work]
        return Batch.of([s.pages[:self._pages(s.held + n)] for s, (_, n) in zip(found, work, strict=True)],
                        [n for _, n in work], [s.past for s in found], [s.limits for s in found],
                        (n_seq, max_pages, n_rows))

    def advance(self, work: Sequence[tuple[Hashable, int]]) -> None:
        """A step with this `work` has run: its tokens are in the cache, and pages the policy emptied are freed."""
        for seq_id, n in work:
            s = self._find(seq_id)
            held, s.past = s.held, s.past + n
            self.n_evicted += held + n - s.held
            if s.past >= s.limits.budget:
                self._shrink(s, s.held + 1)

    def _shrink(self, s: _Held, n_slots: int) -> None:
        extra = s.pages[self._pages(n_slots):]
        del s.pages[self._pages(n_slots):]
        self.pool.release(extra)

    # -- what is in it ------------------------------------------------------------------------------------------------

    def past(self, seq_id: Hashable) -> int:
        """Tokens of a sequence that were processed: the true position of the next one."""
        return self._find(seq_id).past

    def max_pages(self, work: Sequence[tuple[Hashable, int]]) -> int:
        """Pages of the longest sequence after a step: what `batch` needs at least."""
        return max((self._pages(self._find(seq_id).held + n) for seq_id, n in work), default=0)

    def usage(self, seq_id: Hashable) -> Usage:
        """How much a sequence has seen, holds and lost."""
        s = self._find(seq_id)
        return Usage(s.past, s.held, s.past - s.held)

    def held_positions(self, seq_id: Hashable, layer: int) -> np.ndarray:
        """True positions that each head holds, in order: int32, shape (kv_heads, held)."""
        s = self._find(seq_id)
        if not self.policy.positioned:
            return np.broadcast_to(np.arange(s.held, dtype=np.int32), (self.spec.n_kv_heads, s.held))
        return np.sort(self._rows(s, layer, 2 * self.spec.codec.n_parts), axis=1)

    def scores(self, seq_id: Hashable, layer: int) -> np.ndarray:
        """Scores of what each head holds, in the order of `held_positions`: float32, shape (kv_heads, held).

        Raises
        ------
        ValueError
            The policy keeps none.
        """
        if not self.policy.scored:
            raise ValueError(f"{self.policy} keeps no scores; H2O and TOVA do")
        s, n = self._find(seq_id), 2 * self.spec.codec.n_parts
        order = np.argsort(self._rows(s, layer, n), axis=1)
        return np.take_along_axis(self._rows(s, layer, n + 1), order, axis=1)

    def _rows(self, s: _Held, layer: int, k: int) -> np.ndarray:
        return np.asarray(self.states[layer][k])[:, slots_of(np.array(s.pages), s.held, self.page_tokens)]

    @property
    def n_free_pages(self) -> int:
        return self.pool.n_free

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in all layers."""
        return self.n_layers * sum(np.prod(shape, dtype=int) * dtype.itemsize
                                   for shape, dtype in self.spec.layout(self.page_tokens))

    def bytes_used(self) -> int:
        """Bytes of the pages that sequences hold; a shared page counts once."""
        return self.page_bytes * (self.pool.n_pages - self.pool.n_free)

    def bytes_total(self) -> int:
        """Bytes of all pages."""
        return self.page_bytes * self.pool.n_pages

    def _pages(self, n_slots: int) -> int:
        return -(-n_slots // self.page_tokens)

    def _find(self, seq_id: Hashable) -> _Held:
        s = self.sequences.get(seq_id)
        if s is None:
            raise KeyError(f"sequence {seq_id!r} is not in the cache; allocate() it first")
        return s


def _copied(states: Any, source: Array, target: Array, page_tokens: int) -> Any:
    """The states with the contents of pages `source` also in pages `target`."""
    flat = [x.expr for layer in states for x in layer]
    made, _ = build.update(_copy_slots, flat, [source.expr, target.expr], (), (("page_tokens", page_tokens),), "copy pages")
    arrays = iter(map(Array, made))
    return tuple(tuple(next(arrays) for _ in layer) for layer in states)


def _copy_slots(*blocks: np.ndarray, page_tokens: int) -> tuple[()]:
    *states, source, target = blocks
    for x in states:
        pages = x.reshape(x.shape[0], -1, page_tokens, *x.shape[2:])
        pages[:, target] = pages[:, source]
    return ()


__all__ = ["CacheSpec", "KVCache", "OutOfPages", "Usage"]
