"""The one model of a task's seconds."""

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.ops.costs import KINDS, kernel_class
from nums_core.ops.taskgraph import LEAF, GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster, Rate, Worker
from nums_core.runtime.seconds import TASK_OVERHEAD_S, task_seconds, touched_bytes


def graph(kernel=Kernel("map"), flop=6.0):  # noqa: B008
    b = GraphBuilder()
    x = b.ids(b.add(Kernel("leaf", (0,)), (2,), np.zeros((2, 0)), out_bytes=8.0, role=LEAF))
    return b.build((b.add(kernel, (2,), x.reshape(-1, 1), out_bytes=4.0, flop=flop),))


def test_compute_reads_and_writes_add_up():
    cluster = Cluster((Worker(0, flop_per_s=2.0, memory_bytes_per_s=4.0),))
    seconds = task_seconds(graph(), np.zeros(4, np.int32), cluster)
    assert seconds == pytest.approx([0, 0, *[TASK_OVERHEAD_S + 6 / 2 + 8 / 4 + 4 / 4] * 2])


def test_each_worker_at_its_own_rates():
    cluster = Cluster((Worker(0, flop_per_s=2.0, memory_bytes_per_s=4.0), Worker(1, flop_per_s=1.0, memory_bytes_per_s=4.0)))
    seconds = task_seconds(graph(), np.array([0, 1, 0, 1], np.int32), cluster)
    assert seconds[2:] == pytest.approx([6, 9], rel=1e-5)


def test_measured_rates_by_class():
    rates = {"sort.d": Rate(1.0, 2.0, 1.0)}
    cluster = Cluster((Worker(0, flop_per_s=6.0, memory_bytes_per_s=12.0, rates=rates),))
    worker = np.zeros(4, np.int32)
    assert task_seconds(graph(Kernel("sort.merge")), worker, cluster)[2] == pytest.approx(6 + 8 / 2 + 4 / 1, rel=1e-5)
    assert task_seconds(graph(), worker, cluster)[2] == pytest.approx(1 + 1, rel=1e-5), "others go at the worker's own"


def test_parts_of_a_tuple_are_neither_read_nor_written():
    g = graph(Kernel("pick", (0,)))
    read, written = touched_bytes(g)
    assert read.tolist() == [0] * 4 and written.tolist() == [8, 8, 0, 0]
    assert g.out_bytes.tolist() == [8, 8, 4, 4]


X = nc.from_array(np.zeros((64, 64)), chunks=(32, 32))
S = nc.from_array(np.zeros((64, 64), "f4"), chunks=(32, 32))


@pytest.mark.parametrize(("made", "expected"), [
    (X + 1.0, "map.d"), (S + np.float32(1), "map.f"), (X.sum(), "reduce.d"), (X + X.T, "cross.d"), (np.exp(X), "heavy.d"),
    (X @ X, "gemm.d"), (S @ S, "gemm.f"), (nc.cumsum(X, axis=0), "scan.d"), (X[1:], "copy.d"),
    (nc.linalg.qr(nc.from_array(np.zeros((64, 4)), chunks=(16, 4)))[0], "linalg.d"),
    (nc.random.default_rng(0).random((64, 64), chunks=32), "read.d"), (X[X > 0], "select.d"),
    (nc.map_blocks(np.copy, X, dtype=float), "other.d"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_classes(made, expected):
    classes = {kernel_class(f.kernel) for f in made.explain().graph.families if f.role != LEAF}
    assert expected in classes
    assert all(c.partition(".")[0] in KINDS for c in classes)
