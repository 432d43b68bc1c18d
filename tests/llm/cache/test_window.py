"""Sinks and a window."""

import pytest

from nums_core.errors import ConfigError
from nums_core.llm.cache.window import Window
from nums_core.testing.cache import CachePolicySuite, Rule, Running


class TestWindow(CachePolicySuite):
    policy = Window(window=8, sinks=3)
    rule = Rule(budget=11, recent=8, sinks=3, window=8)
    chunks_do_not_matter = True


class TestRolling(CachePolicySuite):
    policy = Window(window=8, sinks=3, rolling=True)
    rule = Rule(budget=11, recent=8, sinks=3, window=8, rolling=True)


@pytest.mark.parametrize("window, sinks", [(1, 0), (1, 5), (30, 0)])
def test_any_sizes(window, sinks):
    suite = CachePolicySuite()
    suite.rule = Rule(budget=window + sinks, recent=window, sinks=sinks, window=window)
    suite.check_steps(Running(Window(window, sinks)), [3, 1, 9, *[1] * 6])


@pytest.mark.parametrize("options, remedy", [({"window": 0}, "at least 1"), ({"window": 8, "sinks": -1}, "at least 0"),
                                             ({"window": 2.5}, "whole number")])
def test_bad_sizes(options, remedy):
    with pytest.raises(ConfigError, match=remedy):
        Window(**options)
