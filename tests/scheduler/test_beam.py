"""Beam search: on the reference's products it beats one-step LSHS and never loses to it."""

import numpy as np
import pytest

from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import beam, make_plan
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.lshs import State
from nums_core.scheduler.policies import Problem
from nums_core.scheduler.portfolio import choose

from .graphs import gemm, outer, random_graph, run_distributed, xty

CASES = [(gemm(2), (2, 2)), (gemm(4), (2, 2)), (gemm(8), (2, 2)), (gemm(8), (4, 4)), (gemm(6, 2), (2, 2)),
         (outer(8), (2, 2)), (xty(16), (4, 1))]


@pytest.mark.parametrize("graph, shape", CASES)
@pytest.mark.parametrize("order", ["fixed", "local"])
def test_never_worse_than_one_step(graph, shape, order):
    problem = Problem(graph, Layout(Cluster.regular(int(np.prod(shape))), "cyclic", shape), order)
    found, _ = choose(problem, "beam")
    greedy = min(choose(problem, "lshs", seed)[0].loads.F for seed in range(4))
    assert found.loads.F <= greedy


@pytest.mark.parametrize("graph, shape", CASES[:4])
def test_beats_one_step_on_products(graph, shape):
    problem = Problem(graph, Layout(Cluster.regular(int(np.prod(shape))), "cyclic", shape), "local")
    found, greedy = choose(problem, "beam")[0].loads, choose(problem, "lshs")[0].loads
    assert (found.F, found.moved) < (greedy.F, greedy.moved)


def test_width_keeps_to_the_time_allowed():
    widths = [beam.width_for(n) for n in range(2000)]
    assert widths[0] == widths[80] == beam.WIDEST and widths[-1] == 1 and widths == sorted(widths, reverse=True)
    assert all(width * n * 3 <= beam.SIMULATIONS for n, width in enumerate(widths) if width > 1)
    assert "beam" in make_plan(gemm(8), Cluster.regular(4)).scores
    assert "beam" not in make_plan(gemm(14), Cluster.regular(4)).scores


def test_forks_share_nothing_that_changes():
    state = State(Cluster.regular(3), 1.0, "least")
    state.make(0, 4.0, 0)
    twin = state.fork()
    twin.commit([0], 1, 2.0, 2)
    twin.send(2, 1, 2.0)
    assert state.where == {0: [0]} and state.mem == [4.0, 0.0, 0.0] and state.moved == 0 and state.top == [4.0, 0.0, 0.0]
    assert twin.where == {0: [0, 2], 1: [2]} and twin.moved == 6
    assert (twin.mem, twin.into, twin.out) == ([4.0, 2.0, 6.0], [0.0, 2.0, 4.0], [4.0, 0.0, 2.0])


@pytest.mark.parametrize("seed", range(12))
def test_any_graph(seed):
    graph = random_graph(seed, 4)
    plan = make_plan(graph, Cluster.regular(2, 2), policy="beam")
    plan.validate()
    run_distributed(plan)
