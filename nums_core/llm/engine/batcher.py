"""Continuous batching: who computes how many tokens in the next step.

Every step takes at most `max_step_tokens` tokens. Sequences that decode come first, one token each, so that no long prompt
stalls them; then prompts are read on in chunks, and waiting requests are admitted, first come first served. When pages run
out, prefixes kept for reuse go first; then the sequence that arrived last gives up its pages and is computed anew later.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from nums_core.errors import ConfigError
from nums_core.llm.cache.page import OutOfPages
from nums_core.llm.engine.prefix import PrefixIndex
from nums_core.llm.engine.sequence import Sequence


class Pages(Protocol):
    """What the batcher asks of a cache. `allocate`, `extend` and `fork` change nothing where they raise `OutOfPages`."""

    page_tokens: int

    @property
    def n_free_pages(self) -> int: ...

    def allocate(self, seq_id: Hashable, n_tokens: int, *, prompt_tokens: int | None = None,
                 expected_tokens: int | None = None, chunk_tokens: int | None = None) -> object: ...

    def extend(self, seq_id: Hashable, n_tokens: int) -> object: ...

    def free(self, seq_id: Hashable) -> object: ...

    def fork(self, parent: Hashable, child: Hashable, n_tokens: int) -> object: ...


@dataclass(frozen=True)
class Chunk:
    """The next `n_tokens` tokens of a sequence that are not cached yet; `n_rows` of them, the last ones, need logits."""

    sequence: Sequence
    n_tokens: int
    n_rows: int

    @classmethod
    def of(cls, sequence: Sequence, n_tokens: int) -> Chunk:
        """Rows are wanted of all tokens where a sequence is scored, of the last where it will go on with a new token."""
        return cls(sequence, n_tokens, n_tokens if sequence.scored else int(n_tokens == sequence.n_waiting))


class Batcher:
    """The queue of waiting sequences and the batch of running ones.

    Parameters
    ----------
    cache : Pages
    max_batch : int, sequences
    max_step_tokens : int, tokens
        Not below `max_batch`.
    reuse_prefixes : bool
        Whether sequences that begin alike may share pages: where the cache's policy keeps every token.
    """

    def __init__(self, cache: Pages, *, max_batch: int, max_step_tokens: int, reuse_prefixes: bool = False) -> None:
        self.cache, self.max_batch, self.max_step_tokens = cache, max_batch, max(max_step_tokens, max_batch)
        self.prefixes = PrefixIndex(cache.page_tokens) if reuse_prefixes else None
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in the order in which they arrived
        self.seq_id: dict[Sequence, int] = {}  # the cache's number of each running sequence
        self.n_preempted = 0
        self.n_reused_tokens = 0
        self._failed: list[Sequence] = []
        self._ids = itertools.count()

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.running or self._failed)

    def add(self, sequence: Sequence) -> None:
        """Put a request at the end of the queue."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """A sequence has ended: its pages are kept for reuse or given back."""
        if sequence in self.seq_id:
            self.running.remove(sequence)
            owner = self.seq_id.pop(sequence)
            if self.prefixes is None or sequence.error or not self.prefixes.retain(owner):
                self._give_back(owner)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def next(self) -> list[Chunk]:
        """The next step. Sequences that can never fit are failed instead; see `take_failed`."""
        chunks: dict[Sequence, int] = {}
        for sequence in sorted(self.running, key=lambda s: s.n_waiting > 1):
            if sequence in self.seq_id:  # not preempted by one before it
                n = self._share(sequence, chunks)
                if n and self._reserve(sequence, sequence.n_cached + n, chunks):
                    chunks[sequence] = n
        while self.waiting and len(self.running) < self.max_batch and self._left(chunks):
            if not self._admit(self.waiting[0]):
                break
            sequence = self.running[-1]
            chunks[sequence] = self._share(sequence, chunks)
        return [Chunk.of(s, n) for s, n in chunks.items()]

    def advance(self, chunks: list[Chunk]) -> None:
        """The chunks have been run: their keys and values are in the cache."""
        for c in chunks:
            c.sequence.n_cached += c.n_tokens
            if self.prefixes is not None:
                self.prefixes.record(self.seq_id[c.sequence], c.sequence.tokens[:c.sequence.n_cached])

    def restart(self) -> None:
        """A step was cut short, and what the cache holds of its sequences is in doubt: all running ones begin anew."""
        for sequence in reversed(self.running[:]):
            self._preempt(sequence)

    def take_failed(self) -> list[Sequence]:
        """Sequences that ended because no memory will ever be enough for them; each is told once."""
        failed, self._failed = self._failed, []
        return failed

    def forget_prefixes(self) -> None:
        """Give back all pages that are kept only because a prompt might begin alike."""
        while self._drop_prefix():
            pass

    # -- tokens of a step ---------------------------------------------------------------------------------------------

    def _left(self, chunks: dict[Sequence, int]) -> int:
        return self.max_step_tokens - sum(chunks.values())

    def _share(self, sequence: Sequence, chunks: dict[Sequence, int]) -> int:
        return min(sequence.n_waiting, sequence.chunk or sequence.n_waiting, self._left(chunks))

    # -- pages --------------------------------------------------------------------------------------------------------

    def _reserve(self, sequence: Sequence, n_tokens: int, chunks: dict[Sequence, int]) -> bool:
        """Pages for a running sequence, taken from later ones if need be; False if it was itself the last."""
        while True:
            try:
                self.cache.extend(self.seq_id[sequence], n_tokens)
                return True
            except OutOfPages as error:
                if self._drop_prefix():
                    continue
                victim = self.running[-1]
                if len(self.running) == 1:
                    self._fail_small(sequence, error)
                    return False
                chunks.pop(victim, None)
                self._preempt(victim)
                if victim is sequence:
                    return False

    def _admit(self, sequence: Sequence) -> bool:
        """Pages for all tokens of a waiting sequence; running ones are not disturbed for it."""
        seq_id = next(self._ids)
        while True:
            owner, n_shared = self._shared(sequence)
            try:
                self._take(seq_id, sequence, owner, n_shared)
                if self.cache.n_free_pages >= len(self.running):
                    break
                self.cache.free(seq_id)
                raise OutOfPages("running sequences need a page each to grow, or the newcomer would be preempted at once")
            except OutOfPages as error:
                if self._drop_prefix():
                    continue
                if not self.running:
                    self._fail_small(sequence, error)
                return False
            except ConfigError as error:  # the policy's budget for such a prompt
                self._fail(sequence, f"{error}; choose another kv_policy, or give more of a prompt")
                return False
        self.waiting.popleft()
        self.running.append(sequence)
        self.seq_id[sequence] = seq_id
        sequence.n_cached = n_shared
        self.n_reused_tokens += n_shared
        return True

    def _shared(self, sequence: Sequence) -> tuple[Hashable | None, int]:
        """Whose pages a sequence may begin with. One that is scored needs the logits of all its tokens."""
        return (None, 0) if self.prefixes is None or sequence.scored else self.prefixes.find(sequence.tokens)

    def _take(self, seq_id: int, sequence: Sequence, owner: Hashable | None, n_shared: int) -> None:
        n = len(sequence.tokens)
        if owner is None:
            self.cache.allocate(seq_id, n, prompt_tokens=sequence.n_prompt, expected_tokens=max(sequence.n_expected, n),
                                chunk_tokens=sequence.chunk)
            return
        self.cache.fork(owner, seq_id, n_shared)
        try:
            self.cache.extend(seq_id, n)
        except OutOfPages:
            self.cache.free(seq_id)
            raise

    def _drop_prefix(self) -> bool:
        """Give back what one ended sequence holds; whether there was one."""
        owner = self.prefixes.oldest() if self.prefixes is not None else None
        if owner is None:
            return False
        self._give_back(owner)
        return True

    def _give_back(self, owner: Hashable) -> None:
        if self.prefixes is not None:
            self.prefixes.forget(owner)
        self.cache.free(owner)

    def _preempt(self, victim: Sequence) -> None:
        """Back to the head of the queue; it will be computed anew, its generated tokens as part of the prompt."""
        self.running.remove(victim)
        self._give_back(self.seq_id.pop(victim))
        victim.n_cached = 0
        self.waiting.appendleft(victim)
        self.n_preempted += 1

    def _fail_small(self, sequence: Sequence, error: Exception) -> None:
        self._fail(sequence, f"the KV cache is too small for its {len(sequence.tokens)} tokens even alone: {error}; give the "
                   "cache more memory (memory=), shorten the prompt or lower max_tokens, or choose a kv_policy with a budget")

    def _fail(self, sequence: Sequence, message: str) -> None:
        sequence.fail(message)
        self.remove(sequence)
        self._failed.append(sequence)
