"""H2O: heavy hitters and recent tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.errors import ConfigError
from nums_core.llm.cache import kernel
from nums_core.llm.cache.h2o import H2O
from nums_core.nn.ops.attend import attention_block
from nums_core.nn.ops.attend import column_sums as second_pass
from nums_core.testing.cache import DIM, CachePolicySuite, Rule, Running


class TestH2O(CachePolicySuite):
    policy = H2O(heavy=6, recent=5)
    rule = Rule(budget=11, recent=5, decay=1.0)


class TestWithoutNativeFunctions(TestH2O):
    @pytest.fixture(autouse=True)
    def numpy_only(self, monkeypatch):
        monkeypatch.setattr(kernel, "native", lambda form, dim, group: None)


class TestRolling(CachePolicySuite):
    policy = H2O(heavy=6, recent=5, rolling=True)
    rule = Rule(budget=11, recent=5, decay=1.0, rolling=True)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.data())
def test_any_budgets_and_any_chunks(data):
    sinks = data.draw(st.integers(0, 3))
    heavy, recent = data.draw(st.integers(max(sinks, 1), 6)), data.draw(st.integers(1, 6))
    decay = data.draw(st.sampled_from([1.0, 0.5, 0.0]))
    suite = CachePolicySuite()
    suite.rule = Rule(budget=heavy + recent, recent=recent, sinks=sinks, decay=decay)
    suite.check_steps(Running(H2O(heavy, recent, sinks, decay)), data.draw(st.lists(st.integers(1, 9), min_size=3, max_size=9)))


def column_sums(q, k):
    """What every key of a prompt receives, summed over the queries of a group: the eager way."""
    n, heads, kv_heads = len(q), q.shape[1], k.shape[1]
    logits = np.einsum("qhgd,khd->hgqk", q.reshape(n, kv_heads, heads // kv_heads, DIM).astype(float), k) * DIM**-0.5
    logits[..., np.triu(np.ones((n, n), bool), 1)] = -np.inf
    probs = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (probs / probs.sum(axis=-1, keepdims=True)).sum(axis=(1, 2))


@pytest.mark.parametrize("heads, kv_heads", [(2, 2), (6, 2)])
def test_scores_of_a_prompt_are_column_sums(heads, kv_heads):
    """Over several tiles of rows; then the heaviest of those before the recent ones are kept."""
    n, heavy, recent = 300, 20, 10
    running = Running(H2O(heavy=heavy, recent=recent), heads=heads, kv_heads=kv_heads, n_pages=80)
    q, k, v = running.tokens(1, n)
    running.feed(0, (q, k, v), [n])
    sums = column_sums(q, k)
    best = np.sort(np.argsort(-sums[:, :n - recent], axis=1, kind="stable")[:, :heavy], axis=1)
    held = running.cache.held_positions(0, 0)
    assert held.tolist() == [[*b, *range(n - recent, n)] for b in best.tolist()]
    np.testing.assert_allclose(running.cache.scores(0, 0), np.take_along_axis(sums, held, axis=1), rtol=1e-5)


def test_scores_of_a_prompt_from_a_fused_attention():
    """A kernel that keeps only the log-sum-exp of its rows gives the same scores in a second pass over it."""
    running = Running(H2O(heavy=30, recent=10), heads=6, kv_heads=2)
    q, k, v = running.tokens(2, 40)
    out = running.feed(0, (q, k, v), [40])
    fused, lse = attention_block(q, k, v)
    np.testing.assert_allclose(fused, out, rtol=1e-4, atol=1e-5)
    of_groups = second_pass(q, k, lse).reshape(2, 3, 40).sum(axis=1)
    np.testing.assert_allclose(running.cache.scores(0, 0), of_groups, rtol=1e-5)


def test_of_equals_the_oldest_goes():
    running = Running(H2O(heavy=3, recent=2, decay=0.0))
    q, k, v = running.tokens(0, 12)
    running.feed(0, (q, np.ones_like(k), v), [4, 5, 1, 1, 1])
    assert running.cache.held_positions(0, 0).tolist() == [[7, 8, 9, 10, 11]] * 2


def test_a_heavy_hitter_stays_for_ever_and_heads_differ():
    """Token 2 draws head 0's attention, token 5 draws head 1's."""
    running = Running(H2O(heavy=2, recent=2), heads=2, kv_heads=2)
    q, k, v = running.tokens(0, 60)
    q[:], k[:] = 1, 0
    k[2, 0], k[5, 1] = 2, 2
    running.feed(0, (q, k, v), [1] * 60)
    held = running.cache.held_positions(0, 0)
    assert 2 in held[0] and 5 in held[1] and held[:, -2:].tolist() == [[58, 59]] * 2


@pytest.mark.parametrize("options, remedy", [
    ({"recent": 0}, "at least 1"), ({"heavy": 2, "sinks": 3}, "at least 3"), ({"heavy": 1.5}, "heavy=1"),
    ({"heavy": -0.1}, "lies above 0"), ({"decay": 1.01}, "from 0 to 1"), ({"sinks": 1.0}, "whole number"),
    ({"heavy": float("nan")}, "lies above 0"), ({"recent": True}, "a number of tokens")])
def test_bad_sizes(options, remedy):
    with pytest.raises(ConfigError, match=remedy):
        H2O(**options)


def test_budgets_that_are_fractions_of_the_prompt():
    policy = H2O(heavy=0.1, recent=0.1, sinks=4)
    assert policy.limits(1024) == (102 + 102, 102)
    assert policy.limits(5) == (4 + 1, 1)
    assert policy.slots(1024, 64) == 204 + 64
    running = Running(policy, n_pages=80)
    running.cache.allocate(0, 30, prompt_tokens=200)
    running.feed(0, running.tokens(0, 90), [30, 30, 30])
    assert running.cache.usage(0).held == 40
