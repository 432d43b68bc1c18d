"""The cache as a whole: pages of sequences, forks, what a step may not do."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nums_core.array as na
from nums_core.errors import ConfigError, ShapeError
from nums_core.llm.cache.attend import CacheAttend
from nums_core.llm.cache.batch import Batch
from nums_core.llm.cache.full import Full
from nums_core.llm.cache.h2o import H2O
from nums_core.llm.cache.kv_cache import KVCache, OutOfPages
from nums_core.llm.cache.policy import Limits
from nums_core.llm.cache.window import Window
from nums_core.testing.cache import Dense, Rule, Running, cut

CONFIG = SimpleNamespace(n_layers=3, n_heads=4, n_kv_heads=2, head_dim=16, window=None)


def test_bytes_are_those_of_the_pages_held():
    cache = KVCache(CONFIG, Full(), n_pages=10, page_tokens=8)
    assert cache.page_bytes == 3 * 2 * (2 * 8 * 16 * 4)
    cache.allocate("a", 9)
    assert cache.bytes_used() == 2 * cache.page_bytes and cache.bytes_total() == 10 * cache.page_bytes
    cache.extend("a", 17)
    assert cache.bytes_used() == 3 * cache.page_bytes
    cache.free("a")
    assert cache.bytes_used() == 0
    with_scores = KVCache(CONFIG, H2O(4, 4), n_pages=1, page_tokens=8, bits=4)
    assert with_scores.page_bytes == 3 * 2 * 8 * (2 * (8 + 2 * 2 * 1) + 4 + 4)


def test_shared_pages_count_once_until_somebody_writes():
    running = Running(Full(), n_pages=8)
    q, k, v = running.tokens(0, 12)
    running.feed("a", (q[:10], k[:10], v[:10]), [10])
    running.cache.fork("a", "b", n_tokens=6)
    running.cache.fork("a", "c")
    assert running.cache.pool.n_pages - running.cache.n_free_pages == 3
    states = running.cache.states
    running.cache.extend("b", 7)
    running.cache.extend("c", 10)  # nothing new: nothing to copy
    assert running.cache.pool.n_pages - running.cache.n_free_pages == 4
    assert running.cache.states is not states
    for name in "abc":
        running.cache.free(name)
    assert running.cache.bytes_used() == 0


@pytest.mark.parametrize("at", [4, 6, 10])
def test_a_fork_of_a_prefix_goes_on_as_if_it_had_been_read(at):
    running = Running(Full())
    q, k, v = running.tokens(0, 20)
    running.feed("a", (q[:10], k[:10], v[:10]), [10])
    running.cache.fork("a", "b", n_tokens=at)
    rest = [x[at:] for x in (q, k, v)]
    out = running.feed("b", rest, [20 - at])
    dense = Dense(Rule(), 4, 2, None)
    np.testing.assert_allclose(out, dense.step(q, k, v)[at:], rtol=2e-4, atol=2e-5)


def test_what_a_policy_dropped_cannot_be_forked():
    running = Running(Window(4, sinks=0))
    running.feed("a", running.tokens(0, 9), [9])
    with pytest.raises(ValueError, match="fork at 9, or compute"):
        running.cache.fork("a", "b", n_tokens=5)
    running.cache.fork("a", "c")


def test_out_of_pages_leaves_everything_as_it_was():
    cache = KVCache(CONFIG, H2O(8, 8), n_pages=4, page_tokens=8)
    cache.allocate("a", 16)
    with pytest.raises(OutOfPages, match="make the cache larger"):
        cache.allocate("b", 32)
    assert "b" not in cache.sequences
    cache.batch([("a", 16)])
    cache.advance([("a", 16)])
    cache.allocate("c", 8)
    with pytest.raises(OutOfPages):
        cache.extend("a", 100)
    with pytest.raises(OutOfPages):
        cache.fork("a", "d")
    assert cache.n_free_pages == 1 and set(cache.sequences) == {"a", "c"}
    assert (cache.pool.refs <= 1).all()


def test_allocate_takes_no_more_than_budget_and_chunk():
    cache = KVCache(CONFIG, H2O(0.1, 0.1), n_pages=64, page_tokens=16, chunk_tokens=32)
    cache.allocate("a", 400)
    assert 64 - cache.n_free_pages == -(-(80 + 32) // 16)
    cache.allocate("b", 400, chunk_tokens=1)
    assert cache.n_free_pages == 64 - 7 - 6
    assert H2O(0.1, 0.1).slots(400, 32) == 112 and Full().slots(400, 32) == 400


def test_a_batch_says_what_a_step_does():
    cache = KVCache(CONFIG, H2O(4, 2), n_pages=8, page_tokens=4)
    cache.allocate("a", 3)
    cache.allocate("b", 5)
    cache.batch([("b", 5)])
    cache.advance([("b", 5)])
    batch = cache.batch([("a", 3), ("b", 1)], n_seq=3, max_pages=4, n_rows=6)
    assert batch.starts.tolist() == [0, 3, 4, 4] and batch.past.tolist() == [0, 5, 0]
    assert batch.positions.tolist() == [0, 1, 2, 5, 0, 0]
    assert [[p for p in row if p >= 0] for row in batch.tables.tolist()] == [cache.sequences[s].pages for s in "ab"] + [[]]
    assert batch.limits.tolist()[:2] == [[6, 2]] * 2
    assert all(x.dtype == np.int32 for x in batch)


def test_what_a_batch_refuses():
    cache = KVCache(CONFIG, Full(), n_pages=8, page_tokens=4)
    cache.allocate("a", 3)
    with pytest.raises(ValueError, match="all its new tokens at once"):
        cache.batch([("a", 1), ("a", 1)])
    with pytest.raises(ValueError, match="larger shape bucket"):
        cache.batch([("a", 3)], n_rows=2)
    with pytest.raises(KeyError, match="allocate"):
        cache.batch([("b", 1)])
    with pytest.raises(ValueError, match="free"):
        cache.allocate("a", 3)
    cache.batch([("a", 3)])
    cache.advance([("a", 3)])
    with pytest.raises(ValueError, match="all tokens after the step"):
        cache.extend("a", 2)
    with pytest.raises(ValueError, match="keeps no scores"):
        cache.scores("a", 0)


@pytest.mark.parametrize("options, remedy", [({"n_pages": 0}, "at least 1"), ({"n_pages": 1, "dtype": "float16"}, "use bits=16")])
def test_what_no_cache_can_be(options, remedy):
    with pytest.raises(ConfigError, match=remedy):
        KVCache(CONFIG, Full(), **options)


def test_shapes_of_another_model_are_refused():
    cache = KVCache(CONFIG, Full(), n_pages=1)
    batch = Batch.of([[0]], [1], [0], [Limits(9, 0)]).arrays()
    attend = CacheAttend(cache.spec, cache.states, batch)
    with pytest.raises(ShapeError, match="flatten the tokens"):
        attend(0, na.zeros((1, 4, 8)), na.zeros((1, 2, 8)), na.zeros((1, 2, 8)))


def test_a_step_changes_states_where_they_lie():
    running = Running(H2O(4, 4))

    def memory():
        return [x.expr.params[0].data.refs[0].__array_interface__["data"][0] for x in running.cache.states[0]]

    parts = cut(running.tokens(0, 12), [9, 1, 1, 1])
    running.cache.allocate(0, 9)
    before = memory()
    for part in parts:
        running.run([(0, part)])
    assert memory() == before
    assert all(x.shape == (2, 64 * 4, *x.shape[2:]) for x in running.cache.states[0])


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["new", "feed", "feed", "fork", "free"]), st.integers(0, 7), st.integers(1, 6)),
                min_size=5, max_size=25))
def test_any_mix_of_sequences_forks_and_ends(actions):
    """In a pool that is often too small: every sequence goes on as if it were alone, and no page is lost."""
    running, texts = Running(Full(), heads=2, kv_heads=1, n_pages=12), {}
    for number, (action, which, n) in enumerate(actions):
        name = sorted(texts)[which % len(texts)] if texts else None
        try:
            if action == "new":
                running.cache.allocate(number, n)
                texts[number] = [x[:0] for x in running.tokens(0, 1)]
            elif name is not None and action == "feed":
                new = running.tokens(number, n)
                (out,) = running.run([(name, new)])
                texts[name] = [np.concatenate(pair) for pair in zip(texts[name], new)]
                np.testing.assert_allclose(out, Dense(Rule(), 2, 1, None).step(*texts[name])[-n:], rtol=2e-4, atol=2e-5)
            elif name is not None and action == "fork":
                at = min(n, len(texts[name][0]))
                running.cache.fork(name, number, at)
                texts[number] = [x[:at] for x in texts[name]]
            elif name is not None:
                running.cache.free(name)
                del texts[name]
        except OutOfPages:
            assert running.cache.n_free_pages < 12
    for name in texts:
        running.cache.free(name)
    assert running.cache.n_free_pages == 12 and not running.cache.pool.refs.any()
