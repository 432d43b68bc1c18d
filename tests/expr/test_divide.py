"""Re-blockings by way of pieces: same values, less read by each task, each source block divided in one go."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import nums_core.array as nc
from nums_core import config

SHAPE = (37, 23, 5)
HAVE = [(5, 23, 5), (37, 4, 2), (10, 7, 3)]
WANT = [(37, 2, 5), (3, 23, 1), (37, 23, 5), (6, 5, 4)]


def families(x):
    return {f.label: f for f in x.explain().graph.families}


@pytest.mark.parametrize("have, want", list(itertools.product(HAVE, WANT)))
def test_same_values(have, want):
    v = np.random.default_rng(0).random(SHAPE)
    x = nc.from_array(v, chunks=have).persist()
    with config.set(block_bytes=64):
        np.testing.assert_array_equal(x.rechunk(want).compute(), v, strict=True)
        np.testing.assert_array_equal(x[::-2, 3:20:3].rechunk((2, 2, 5)).compute(), v[::-2, 3:20:3], strict=True)


def test_only_where_tasks_would_read_much():
    x = nc.ones((64, 64), chunks=(4, 64)).persist()
    y = x.rechunk((64, 4))
    assert "divide" not in families(y)  # all of it is a few blocks of the usual size
    with config.set(block_bytes=2048):
        assert families(y)["divide"].count == 16 * 16
        assert "divide" not in families(x.rechunk((16, 64)))  # whole blocks, put together
        assert "divide" not in families(x.rechunk((4, 16)))  # one block each


def test_a_task_reads_about_what_it_makes():
    x = nc.ones((64, 64), chunks=(4, 64)).persist()
    with config.set(block_bytes=2048):
        graph = x.rechunk((64, 4)).explain().graph
    read = np.bincount(graph.consumer_of_edge, graph.out_bytes[graph.in_idx], graph.n_tasks)
    gathers = graph.families[-1]
    np.testing.assert_array_equal(read[gathers.start:gathers.stop], graph.out_bytes[gathers.start:gathers.stop])


@pytest.mark.parametrize("have, want", [((4, 64), (64, 4)), ((64, 4), (4, 64))])
def test_each_source_block_is_divided_in_one_go(have, want):
    x = nc.ones((64, 64), chunks=have) + nc.random.default_rng(0).random((64, 64), chunks=have)
    with config.set(block_bytes=2048):
        plan = x.rechunk(want).explain()
    graph, divide = plan.graph, next(f for f in plan.graph.families if f.label == "divide")
    order = [t for t in plan.order if divide.start <= t < divide.stop]
    sources = [int(graph.inputs(t)[0]) for t in order]
    assert len(list(itertools.groupby(sources))) == len(set(sources)) == 16
    first_gather = min(int(plan.position[t]) for t in range(graph.families[-1].start, graph.families[-1].stop))
    assert max(int(plan.position[t]) for t in order) < first_gather
