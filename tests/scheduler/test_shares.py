"""Unlike workers: shares, layouts in proportion, and what that is worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.ops.taskgraph import GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster, Worker
from nums_core.scheduler import make_plan
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.shares import burden, shares

from .graphs import leaf

FAST, SLOW = {"flop_per_s": 6e10, "memory_bytes_per_s": 1.5e10}, {"flop_per_s": 2e10, "memory_bytes_per_s": 5e9}
UNLIKE = Cluster((Worker(0, **FAST), *(Worker(n, **SLOW) for n in (1, 2, 3))))


def work(n=48, flop=2e9):
    b = GraphBuilder()
    x = leaf(b, 0, (n,), 8.0)
    return b.build((b.add(Kernel("map"), (n,), x.reshape(-1, 1), out_bytes=8.0, flop=flop),))


def test_alike_workers_have_no_shares():
    assert shares(Cluster.regular(4, 2)) is None and burden(Cluster.regular(4, 2)) is None


def test_speed_decides():
    assert shares(UNLIKE) == pytest.approx([0.5, 1 / 6, 1 / 6, 1 / 6])
    assert burden(UNLIKE) == pytest.approx([0.5, 1.5, 1.5, 1.5])
    threads = Cluster((Worker(0, 3), Worker(1, 1)))
    assert shares(threads) == pytest.approx([0.75, 0.25])


def test_memory_limits():
    """The fast worker would get half of 100 bytes but has room for 20; the rest is dealt to the others."""
    small = Cluster((Worker(0, memory_bytes=20, **FAST), *(Worker(n, memory_bytes=90, **SLOW) for n in (1, 2, 3))))
    assert shares(small, 100.0) == pytest.approx([0.2, 0.8 / 3, 0.8 / 3, 0.8 / 3])
    assert shares(small, 1e6) == pytest.approx(np.array([20, 90, 90, 90]) / 290), "where nothing fits, all are filled alike"


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 50), st.floats(1e9, 1e11)), min_size=2, max_size=6),
       st.floats(0, 300))
def test_shares_add_up_and_keep_to_memory(workers, held):
    cluster = Cluster(tuple(Worker(n, t, m, f) for n, (t, m, f) in enumerate(workers)))
    part = shares(cluster, held)
    if part is not None:
        assert part.sum() == pytest.approx(1) and (part > 0).all()
        if held <= cluster.memory_bytes.sum():
            assert (part * held <= cluster.memory_bytes * (1 + 1e-9)).all()


@pytest.mark.parametrize("kind", ["packed", "cyclic"])
@pytest.mark.parametrize("grid", [(48,), (12, 12), (6, 6, 4), (7, 5)])
def test_blocks_in_proportion(kind, grid):
    part = shares(UNLIKE)
    counts = np.bincount(Layout(UNLIKE, kind, shares=part).workers(grid), minlength=4) / np.prod(grid)
    assert counts == pytest.approx(part, abs=0.12)
    assert counts.argmax() == 0


def test_packed_blocks_are_tiles():
    at = Layout(UNLIKE, shares=shares(UNLIKE)).workers((12, 12)).reshape(12, 12)
    for w in range(4):
        i, j = np.nonzero(at == w)
        assert len(i) == (i.max() - i.min() + 1) * (j.max() - j.min() + 1)


def test_a_single_block_goes_to_the_strongest():
    backwards = Cluster(UNLIKE.workers[::-1])
    assert Layout(backwards, shares=shares(backwards)).workers((1,)).tolist() == [3]


def test_sooner_than_dealt_equally():
    unlike = make_plan(work(), UNLIKE)
    equally = np.repeat(np.arange(4), 12)
    seconds = 48 * 2e9 / 4
    assert unlike.prediction.seconds < 0.7 * seconds / 2e10
    assert np.bincount(unlike.worker[:48]).tolist() == [24, 8, 8, 8] != np.bincount(equally).tolist()


def test_deterministic():
    a, b = make_plan(work(), UNLIKE), make_plan(work(), UNLIKE)
    assert (a.worker == b.worker).all() and (a.order == b.order).all()
