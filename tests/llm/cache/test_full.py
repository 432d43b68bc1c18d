"""The full cache, with and without the model's own window."""

import numpy as np
import pytest

from nums_core.llm.cache import kernel
from nums_core.llm.cache.full import Full
from nums_core.testing.cache import CachePolicySuite, Dense, Rule, Running, cut


class TestFull(CachePolicySuite):
    policy = Full()
    rule = Rule()
    chunks_do_not_matter = True


def test_a_model_with_a_window_of_its_own():
    running, dense = Running(Full(), window=9), Dense(Rule(window=9), 4, 2, None)
    running.cache.allocate(0, 30)
    for part in cut(running.tokens(1, 30), [5, 12, *[1] * 13]):
        np.testing.assert_allclose(running.run([(0, part)])[0], dense.step(*part), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("bits", [32, 4])
def test_long_sequences_with_and_without_native_functions(bits, monkeypatch):
    """More slots than are expanded at once."""
    made = []
    for native in (kernel.native, lambda form, dim, group: None):
        monkeypatch.setattr(kernel, "native", native)
        running = Running(Full(), bits=bits, n_pages=160)
        made.append(running.feed(0, running.tokens(0, 602), [600, 1, 1])[600:])
    np.testing.assert_allclose(*made, rtol=1e-4, atol=1e-5)
