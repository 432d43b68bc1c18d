"""CachePolicySuite: what every cache policy must do. Subclass it, give it a policy and the same rule in numbers.

    class TestMine(CachePolicySuite):
        policy = H2O(heavy=6, recent=5)
        rule = Rule(budget=11, recent=5, decay=1.0)

The oracle is `Dense`: it keeps every key and value in float64, masks what is not held, and decides in plain loops, token by
token and head by head.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nums_core.array as na
from nums_core.llm.cache.attend import CacheAttend
from nums_core.llm.cache.batch import Batch
from nums_core.llm.cache.full import Full
from nums_core.llm.cache.kv_cache import KVCache
from nums_core.llm.cache.policy import NO_LIMIT, Policy
from nums_core.session import jit

DIM = 64  # that native functions take, in every form


@dataclass(frozen=True)
class Rule:
    """A policy in numbers.

    Attributes
    ----------
    decay : float or None
        None: no scores, the oldest goes first.
    shared : bool
        Scores are averaged over all heads.
    """

    budget: int = NO_LIMIT
    recent: int = 0
    sinks: int = 0
    decay: float | None = None
    shared: bool = False
    window: int | None = None
    rolling: bool = False


@dataclass(frozen=True)
class Turning:
    """Rotary embedding, the plain way: pairs half a head apart turn by position / 100^(2 i / dim)."""

    dim: int = DIM

    def apply(self, x: np.ndarray, positions: Any) -> np.ndarray:
        half = self.dim // 2
        angle = np.asarray(positions)[..., None, None] / 100.0 ** (np.arange(half) / half)
        c, s = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate((a * c - b * s, b * c + a * s), axis=-1)


class Dense:
    """One layer of one sequence in float64: every token is kept, what is not held is masked.

    Attributes
    ----------
    held : list, one a KV head, of lists of positions
    score : float64 ndarray, shape (kv_heads, tokens so far)
    """

    def __init__(self, rule: Rule, heads: int, kv_heads: int, rotary: Any) -> None:
        self.rule, self.heads, self.kv_heads, self.rotary = rule, heads, kv_heads, rotary
        self.keys, self.values = np.empty((0, kv_heads, DIM)), np.empty((0, kv_heads, DIM))
        self.held: list[list[int]] = [[] for _ in range(kv_heads)]
        self.score = np.empty((kv_heads, 0))

    def step(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Attention of some new tokens, (n, heads, d), after which the budget holds again."""
        past, n = len(self.keys), len(q)
        self.keys, self.values = np.concatenate((self.keys, k)), np.concatenate((self.values, v))
        self.score = np.concatenate((self.score, np.zeros((self.kv_heads, n))), axis=1)
        there = [held + list(range(past, past + n)) for held in self.held]
        out = np.stack([self._row(there, past + i, row) for i, row in enumerate(q.astype(float))])
        self.held = [self._reduced(h, held, past + n) for h, held in enumerate(there)]
        return out

    def _row(self, there: list[list[int]], position: int, q: np.ndarray) -> np.ndarray:
        """Attention of one query (heads, d), and what it does to the scores."""
        group, received = self.heads // self.kv_heads, np.zeros_like(self.score)
        out = np.empty_like(q)
        for head in range(self.heads):
            h = head // group
            seen = [p for p in there[h] if p <= position and self._sees(position, p)]
            turn = {p: (there[h].index(p) if self.rule.rolling else p) for p in there[h]}
            keys = np.stack([self._turned(self.keys[p, h], turn[p]) for p in seen])
            logits = keys @ self._turned(q[head], turn[position]) * DIM**-0.5
            probs = np.exp(logits - logits.max())
            probs /= probs.sum()
            out[head] = probs @ self.values[seen, h]
            received[h, seen] += probs
        if self.rule.decay is not None:
            self.score = self.rule.decay * self.score + (received.mean(axis=0) if self.rule.shared else received)
        return out

    def _sees(self, query: int, key: int) -> bool:
        return self.rule.window is None or key < self.rule.sinks or query - key < self.rule.window

    def _turned(self, x: np.ndarray, position: int) -> np.ndarray:
        return x if self.rotary is None else self.rotary.apply(x[None], np.float64(position))[0]

    def _reduced(self, h: int, held: list[int], seen: int) -> list[int]:
        held = list(held)
        while len(held) > self.rule.budget:
            candidates = [p for p in held if self.rule.sinks <= p < seen - self.rule.recent]
            held.remove(min(candidates, key=lambda p: (self.score[h, p], p)))
        return held


class Running:
    """A one-layer cache with its jitted step, driven with made-up queries, keys and values."""

    def __init__(self, policy: Policy, heads: int = 4, kv_heads: int = 2, rotary: Any = None, n_pages: int = 64,
                 window: int | None = None, **options: Any) -> None:
        config = SimpleNamespace(n_layers=1, n_heads=heads, n_kv_heads=kv_heads, head_dim=DIM, window=window)
        self.cache = KVCache(config, policy, n_pages=n_pages, page_tokens=4, **options)
        self.heads, self.kv_heads = heads, kv_heads
        spec = self.cache.spec

        def step(states: Any, q: Any, k: Any, v: Any, *batch: Any) -> Any:
            attend = CacheAttend(spec, states, Batch(*batch))
            return attend(0, q, k, v, rotary), attend.states

        self._step = jit(step, donate=(0,))

    def tokens(self, seed: int, n: int) -> tuple[np.ndarray, ...]:
        """q, k and v of a sequence of n tokens, float32."""
        rng = np.random.default_rng(seed)
        return tuple(rng.normal(size=(n, h, DIM)).astype(np.float32) for h in (self.heads, self.kv_heads, self.kv_heads))

    def run(self, work: Sequence[tuple[Hashable, Sequence[np.ndarray]]], padding: int = 0) -> list[np.ndarray]:
        """A step that gives each sequence new q, k, v; with `padding` rows and sequences of NaN behind them."""
        counts = [(seq_id, len(new[0])) for seq_id, new in work]
        n_rows, n_seq = sum(n for _, n in counts) + padding, len(work) + padding
        few = max(32, self.cache.max_pages(counts))  # shapes, and so plans
        batch = self.cache.batch(counts, n_rows=n_rows, n_seq=n_seq, max_pages=few)
        rows = [np.concatenate([*parts, np.full((padding, *parts[0].shape[1:]), np.nan, np.float32)])
                for parts in zip(*(new for _, new in work), strict=True)]
        out, self.cache.states = self._step(self.cache.states, *map(na.asarray, rows), *batch.arrays())
        self.cache.advance(counts)
        made, starts = np.asarray(out), np.cumsum([0, *(n for _, n in counts)])
        assert not made[starts[-1]:].any()
        return [made[a:b] for a, b in pairwise(starts)]

    def run_in_two(self, work: Sequence[tuple[Hashable, Sequence[np.ndarray]]], row: int) -> list[np.ndarray]:
        """The step that `run` makes, as two: rows before `row` and those from it on."""
        counts = [(seq_id, len(new[0])) for seq_id, new in work]
        rows = [np.concatenate(parts) for parts in zip(*(new for _, new in work), strict=True)]
        outs = []
        for at, batch in zip((slice(0, row), slice(row, None)), self.cache.batch(counts).cut(row), strict=True):
            out, self.cache.states = self._step(self.cache.states, *(na.asarray(x[at]) for x in rows), *batch.arrays())
            outs.append(np.asarray(out))
        self.cache.advance(counts)
        return np.split(np.concatenate(outs), np.cumsum([n for _, n in counts])[:-1])

    def feed(self, seq_id: Hashable, qkv: Sequence[np.ndarray], chunks: Sequence[int]) -> np.ndarray:
        """Run a whole sequence alone, cut into `chunks`."""
        if seq_id not in self.cache.sequences:
            self.cache.allocate(seq_id, len(qkv[0]), chunk_tokens=max(chunks))
        return np.concatenate([self.run([(seq_id, part)])[0] for part in cut(qkv, chunks)])


def cut(qkv: Sequence[np.ndarray], chunks: Sequence[int]) -> list[tuple[np.ndarray, ...]]:
    """A sequence in pieces of these lengths."""
    ends = np.cumsum(chunks)
    assert ends[-1] == len(qkv[0])
    return [tuple(x[e - n:e] for x in qkv) for n, e in zip(chunks, ends, strict=True)]


class CachePolicySuite:
    """Tests of a policy; see the module."""

    policy: Policy
    rule: Rule
    chunks_do_not_matter = False

    prompt, decoded = 29, 14

    @property
    def chunks(self) -> list[int]:
        """A prompt in uneven pieces, then one token at a time."""
        return [13, 1, 9, self.prompt - 23] + [1] * self.decoded

    def running(self, **options: Any) -> Running:
        return Running(self.policy, **options)

    def check_state(self, running: Running, seq_id: Hashable, dense: Dense) -> None:
        """The cache holds what the oracle holds, with the same scores."""
        cache = running.cache
        assert cache.held_positions(seq_id, 0).tolist() == dense.held
        assert len(dense.held[0]) <= self.rule.budget
        if self.rule.decay is not None:
            want = np.take_along_axis(dense.score, np.array(dense.held), axis=1)
            np.testing.assert_allclose(cache.scores(seq_id, 0), want, rtol=2e-4, atol=1e-5)

    def check_steps(self, running: Running, chunks: Sequence[int], rotary: Any = None) -> None:
        """Every step of a sequence cut into `chunks` equals the oracle's."""
        dense = Dense(self.rule, running.heads, running.kv_heads, rotary)
        running.cache.allocate(0, self.prompt)
        for part in cut(running.tokens(running.heads, sum(chunks)), chunks):
            (out,) = running.run([(0, part)])
            np.testing.assert_allclose(out, dense.step(*part), rtol=2e-4, atol=2e-5)
            self.check_state(running, 0, dense)

    @pytest.mark.parametrize("heads, kv_heads, rotary", [(1, 1, None), (3, 3, Turning()), (5, 1, Turning()), (6, 2, None)])
    def test_every_step_equals_a_dense_masked_simulation(self, heads: int, kv_heads: int, rotary: Any) -> None:
        self.check_steps(self.running(heads=heads, kv_heads=kv_heads, rotary=rotary), self.chunks, rotary)

    def test_a_prompt_read_at_once_and_then_decoded(self) -> None:
        self.check_steps(self.running(), [self.prompt, *[1] * 6])

    def test_ragged_batches_with_padding(self) -> None:
        """Prompts and decoding sequences of all lengths in one step; padding, full of NaN, changes nothing."""
        running = self.running(rotary=Turning())
        plans = {"a": [5] + [1] * 15, "b": [1] * 16, "c": [17, 11, *[1] * 14], "d": [3, 3, 3, *[1] * 13]}
        dense = {s: Dense(self.rule, 4, 2, Turning()) for s in plans}
        parts = {s: cut(running.tokens(k, sum(c)), c) for k, (s, c) in enumerate(plans.items())}
        for s, c in plans.items():
            running.cache.allocate(s, sum(c))
        for i in range(16):
            work = [(s, parts[s][i]) for s in plans]
            for s, out in zip(plans, running.run(work, padding=i % 3), strict=True):
                np.testing.assert_allclose(out, dense[s].step(*parts[s][i]), rtol=2e-4, atol=2e-5)
                self.check_state(running, s, dense[s])

    def test_the_same_bits_alone_and_in_a_batch(self) -> None:
        together, chunks = self.running(rotary=Turning()), {k: [4 + 5 * k] + [1] * 14 for k in range(3)}
        qkv = {k: together.tokens(k, sum(c)) for k, c in chunks.items()}
        parts = {k: cut(qkv[k], chunks[k]) for k in chunks}
        for k in chunks:
            together.cache.allocate(k, len(qkv[k][0]))
        batched = [together.run([(k, parts[k][i]) for k in chunks]) for i in range(15)]
        for k in chunks:
            alone = self.running(rotary=Turning()).feed(k, qkv[k], chunks[k])
            assert np.array_equal(alone, np.concatenate([outs[k] for outs in batched]))

    def test_the_same_bits_as_the_full_cache_until_the_budget_is_reached(self) -> None:
        n = min(self.rule.budget, self.rule.window or NO_LIMIT, 40)
        chunks = [n - 3, 1, 1, 1]
        running = self.running(rotary=Turning())
        qkv = running.tokens(5, n)
        full = Running(Full(), rotary=Turning()).feed(0, qkv, chunks)
        mine = running.feed(0, qkv, chunks)
        if self.rule.rolling:  # keys are rotated together, not as they come
            np.testing.assert_allclose(mine, full, rtol=1e-5, atol=1e-5)
        else:
            assert np.array_equal(mine, full)

    def test_twice_the_same_bits(self) -> None:
        qkv = self.running().tokens(6, sum(self.chunks))
        first, second = (self.running().feed(0, qkv, self.chunks) for _ in range(2))
        assert np.array_equal(first, second)

    def test_pages_wherever_they_lie(self) -> None:
        """In a pool full of holes a sequence has its pages in many runs."""
        qkv = self.running().tokens(7, sum(self.chunks))
        whole = self.running().feed(0, qkv, self.chunks)
        holed = self.running(n_pages=128)
        for k in range(32):
            holed.cache.allocate(f"hole {k}", 8, expected_tokens=8)
        for k in range(0, 32, 2):
            holed.cache.free(f"hole {k}")
        holed.cache.allocate("rest", holed.cache.n_free_pages * 4 - 64 * 2, chunk_tokens=NO_LIMIT)
        assert np.array_equal(holed.feed(0, qkv, self.chunks), whole)

    def test_freed_pages_are_used_again_and_nothing_is_left_in_them(self) -> None:
        """Six times what the pool holds passes through it; what went before was NaN."""
        n_pages = -(-(self.prompt + self.decoded) // 4)
        running, clean = self.running(n_pages=n_pages), self.running(n_pages=n_pages)
        qkv = running.tokens(8, sum(self.chunks))
        wanted = clean.feed(0, qkv, self.chunks)
        for turn in range(3):
            bad = [np.full_like(x, np.nan) for x in qkv]
            running.feed("bad", bad, self.chunks)
            running.cache.free("bad")
            assert running.cache.n_free_pages == n_pages and running.cache.bytes_used() == 0
            assert np.array_equal(running.feed(turn, qkv, self.chunks), wanted)
            running.cache.free(turn)

    def test_memory_stays_at_budget_and_chunk(self) -> None:
        running, chunk = self.running(), 8
        qkv = running.tokens(9, 64)
        running.cache.allocate(0, 64, chunk_tokens=chunk)
        for part in cut(qkv, [chunk] * 6 + [1] * 16):
            running.run([(0, part)])
            most = min(self.rule.budget + chunk, 64)
            assert running.cache.bytes_used() <= -(-most // 4) * running.cache.page_bytes
        held = min(self.rule.budget, 64)
        assert running.cache.usage(0) == (64, held, 64 - held)
        assert running.cache.n_evicted == 64 - held
        assert running.cache.bytes_used() <= (held // 4 + 1) * running.cache.page_bytes

    def test_whether_chunks_matter(self) -> None:
        """Where what a query sees depends on positions alone, a prompt may be cut anywhere."""
        qkv = self.running().tokens(10, 40)
        pieces, whole = (self.running(rotary=Turning()).feed(0, qkv, c) for c in ([3, 7, 1, 13, 9, 7], [40]))
        assert np.allclose(pieces, whole, rtol=1e-4, atol=1e-5) == self.chunks_do_not_matter

    @pytest.mark.parametrize("row", [1, 5, 9, 10, 25])
    def test_a_step_cut_in_two_is_the_same_step(self, row: int) -> None:
        """Wherever the cut falls, between sequences or inside one, beyond the budget or within."""
        chunks = {"a": [9, 12, 1], "b": [1, 1, 1], "c": [20, 3, 1]}
        whole, halves = self.running(rotary=Turning()), self.running(rotary=Turning())
        parts = {s: cut(whole.tokens(20 + k, sum(c)), c) for k, (s, c) in enumerate(chunks.items())}
        for s, running in itertools.product(chunks, (whole, halves)):
            running.cache.allocate(s, sum(chunks[s]))
        for i in range(3):
            work = [(s, parts[s][i]) for s in chunks]
            n_rows = sum(len(new[0]) for _, new in work)
            for one, two in zip(whole.run(work), halves.run_in_two(work, min(row, n_rows - 1)), strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
        for s in chunks:
            assert np.array_equal(whole.cache.held_positions(s, 0), halves.cache.held_positions(s, 0))
            if whole.cache.spec.policy.scored:
                np.testing.assert_allclose(whole.cache.scores(s, 0), halves.cache.scores(s, 0), rtol=1e-4, atol=1e-5)

    def test_a_sequence_with_nan_harms_no_other(self) -> None:
        running = self.running()
        n, chunks = 24, [6] + [1] * 18
        good = running.tokens(11, n)
        alone = self.running().feed("good", good, chunks)
        bad = [np.full_like(x, np.nan) for x in good]
        for s in ("bad", "good"):
            running.cache.allocate(s, n)
        outs = [running.run([("bad", b), ("good", g)])[1]
                for b, g in zip(cut(bad, chunks), cut(good, chunks), strict=True)]
        assert np.array_equal(np.concatenate(outs), alone)

    @pytest.mark.parametrize("bits", [16, 8, 4])
    def test_stored_in_fewer_bits(self, bits: int) -> None:
        """The same as float32 on keys and values that were rounded before; a slot's code is its own."""
        small, plain = self.running(bits=bits), self.running()
        q, k, v = small.tokens(12, sum(self.chunks))
        spec = small.cache.spec
        mixing = np.eye(DIM, dtype=np.float32) if spec.mixing is None else spec.mixing
        dtypes = [dtype for _, dtype in spec.codec.parts(DIM)]
        k, v = (spec.codec.decode(tuple(map(np.asarray, spec.codec.encode(x @ mixing), dtypes))) @ mixing for x in (k, v))
        np.testing.assert_allclose(small.feed(0, (q, k, v), self.chunks), plain.feed(0, (q, k, v), self.chunks), rtol=1e-3,
                                   atol=1e-3)
        assert small.cache.held_positions(0, 0).tolist() == plain.cache.held_positions(0, 0).tolist()
        assert small.cache.page_bytes < plain.cache.page_bytes * (0.75 if bits == 16 else 0.6)

    def test_a_fork_and_its_parent_go_their_own_ways(self) -> None:
        running = self.running()
        qkv, other = running.tokens(13, 40), running.tokens(14, 20)
        other = tuple(np.concatenate((a[:22], b)) for a, b in zip(qkv, other, strict=True))
        running.feed(0, [x[:22] for x in qkv], [15, 7])
        running.cache.fork(0, 1)
        chunks = [1] * 8 + [5] + [1] * 5
        outs = [running.run([(0, a), (1, b)]) for a, b in
                zip(cut([x[22:] for x in qkv], chunks), cut([x[22:40] for x in other], chunks), strict=True)]
        for k, source in enumerate((qkv, [x[:40] for x in other])):
            alone = self.running().feed(0, source, [15, 7, *chunks])
            assert np.array_equal(np.concatenate([o[k] for o in outs]), alone[22:])
            running.cache.free(k)
        assert running.cache.bytes_used() == 0
