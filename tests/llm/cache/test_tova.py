"""TOVA: what the newest query attends least goes."""

import numpy as np
import pytest

from nums_core.errors import ConfigError
from nums_core.llm.cache.tova import TOVA
from nums_core.testing.cache import CachePolicySuite, Rule, Running


class TestTOVA(CachePolicySuite):
    policy = TOVA(budget=10)
    rule = Rule(budget=10, recent=1, decay=0.0, shared=True)


class TestTOVAWithSinks(CachePolicySuite):
    policy = TOVA(budget=10, sinks=2, recent=3, rolling=True)
    rule = Rule(budget=10, recent=3, sinks=2, decay=0.0, shared=True, rolling=True)


def test_of_equals_the_oldest_goes():
    running = Running(TOVA(budget=6, sinks=1))
    q, k, v = running.tokens(0, 12)
    running.feed(0, (q, np.ones_like(k), v), [4, 5, 1, 1, 1])
    assert running.cache.held_positions(0, 0).tolist() == [[0, 7, 8, 9, 10, 11]] * 2


@pytest.mark.parametrize("options, remedy", [({"budget": 3, "sinks": 3}, "at least 4"), ({"recent": 0}, "at least 1"),
                                             ({"budget": 1.5}, "at most 1"), ({"budget": "3"}, "a number of tokens")])
def test_bad_sizes(options, remedy):
    with pytest.raises(ConfigError, match=remedy):
        TOVA(**options)


def test_a_fraction_of_the_prompt():
    assert TOVA(budget=0.25).limits(100) == (25, 1)
    assert TOVA(budget=0.01, sinks=2).limits(100) == (3, 1)
