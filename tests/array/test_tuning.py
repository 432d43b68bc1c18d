"""tune_chunks: what it chooses, and what it refuses."""

import math

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.errors import ConfigError, MemoryBudgetError
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.simulate import simulate


class Shape:
    def __init__(self, *shape, dtype="f8"):
        self.shape, self.dtype = shape, np.dtype(dtype)


def centred(x):
    return (x - x.mean(axis=0)).sum(axis=1)


def of(chunks):
    """The grid, and the largest block."""
    return tuple(map(len, chunks)), tuple(map(max, chunks))


# The shapes and clusters of NumS' table of automatic blocks: 4 nodes of 16 cores, and 16 of 32.
@pytest.mark.parametrize(("shape", "nodes", "threads", "grid", "block"), [
    ((10**8,), 4, 16, (64,), (1_562_500,)), ((10**8, 10), 4, 16, (64, 1), (1_562_500, 10)),
    ((40_000, 40_000), 4, 16, (8, 8), (5000, 5000)), ((40_000, 40_000), 16, 32, None, None),
    ((10**5, 2000), 16, 32, None, None), ((2000, 10**5), 16, 32, None, None),
    ((2000, 2000, 500), 4, 16, (8, 8, 1), (250, 250, 500))])
def test_no_slivers(shape, nodes, threads, grid, block):
    """About a block for each core or more, and no axis in pieces of a few elements."""
    (chunks,) = nc.tune_chunks(lambda x: (x * 2.0).sum(), Shape(*shape), cluster=Cluster.regular(nodes, threads=threads))
    assert math.prod(map(len, chunks)) > 0.95 * nodes * threads
    assert all(len(c) == 1 or max(c) >= 64 for c in chunks)
    if grid is not None:
        assert of(chunks) == (grid, block)


def test_deterministic():
    cluster = Cluster.regular(4, threads=4)
    assert len({nc.tune_chunks(centred, Shape(20_000, 500), cluster=cluster) for _ in range(2)}) == 1


def test_never_worse_than_auto():
    from nums_core import session

    def seconds(f, chunks, cluster, *shapes):
        arrays = [nc.from_array(np.broadcast_to(np.zeros(()), s.shape), chunks=c) for s, c in zip(shapes, chunks, strict=True)]
        return simulate(session.current().trial([f(*arrays).expr], cluster)).seconds

    cluster = Cluster.regular(2, threads=2)
    for f, shapes in ((centred, [Shape(50_000, 300)]), (lambda a, b: a @ b, [Shape(3000, 3000)] * 2)):
        chosen = nc.tune_chunks(f, *shapes, cluster=cluster)
        assert seconds(f, chosen, cluster, *shapes) <= 1.02 * seconds(f, ["auto"] * len(shapes), cluster, *shapes)


def test_blocks_fit_the_memory():
    (chunks,) = nc.tune_chunks(lambda x: x + 1.0, Shape(8192, 1024), cluster=Cluster.regular(2, memory_bytes=6 * 2**20))
    assert math.prod(map(max, chunks)) * 8 <= 6 * 2**20
    with pytest.raises(MemoryBudgetError, match="use smaller chunks"):
        nc.tune_chunks(lambda x: x + 1.0, Shape(8192, 1024), cluster=Cluster.regular(2, memory_bytes=2**10))


def test_the_cluster_in_force_and_real_arrays():
    x = nc.from_array(np.ones((300, 20)))
    (chunks,) = nc.tune_chunks(centred, x)
    assert x.rechunk(chunks).sum().compute() == 6000.0


def test_what_it_refuses():
    with pytest.raises(ConfigError, match=r"tune_chunks\(f, x, y\)"):
        nc.tune_chunks(centred)
    with pytest.raises(ConfigError, match="leave it out"):
        nc.tune_chunks(lambda x: 3, Shape(10))
