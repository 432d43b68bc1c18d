"""The graphs of bench/planning.py, small and untimed, so that the benchmark cannot rot."""

import pytest

from bench.planning import KINDS, measure
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import make_plan


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cluster", [Cluster.single(2, 2**30), Cluster.regular(16)], ids=["1", "16"])
def test_graphs_are_planned(kind, cluster):
    graph = KINDS[kind](400)
    graph.validate()
    make_plan(graph, cluster).validate()
    assert "us/task" in measure(graph, cluster, 1)
