"""The portfolio: who wins, ties, twins, and never worse than LSHS by its own objective."""

import pytest

from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import portfolio
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.lshs import search
from nums_core.scheduler.policies import Problem
from nums_core.scheduler.portfolio import POLICIES, choose

from .graphs import aligned, gemm, outer, xty


@pytest.mark.parametrize("graph, shape", [
    (xty(48), (16, 1)), (xty(64), (16, 1)), (gemm(2), (2, 2)), (gemm(8), (2, 2)), (gemm(8), (4, 4)), (outer(16), (4, 4)),
])
def test_never_worse_than_lshs(graph, shape):
    layout = Layout(Cluster.regular(shape[0] * shape[1]), "cyclic", shape)
    best, scores = choose(Problem(graph, layout, "local"))
    assert best.loads.F == min(scores.values())
    for seed in range(4):
        assert best.loads.F <= search(graph, layout, seed=seed).loads.F


def test_all_members_are_scored():
    _, scores = choose(Problem(gemm(4), Layout(Cluster.regular(4))))
    assert set(scores) == {*POLICIES, *(f"lshs-{k}" for k in range(2, 5))} - {"portfolio", "2.5d"}


def test_seeds_become_fewer_as_graphs_grow():
    seeds = [portfolio._seeds(n) for n in (1, 120, 121, 600, 601, 10**6)]
    assert seeds == sorted(seeds, reverse=True) == [4, 4, 2, 2, 1, 1]


def test_twins_share_a_score():
    """Operands of equal size: the largest is the first."""
    _, scores = choose(Problem(gemm(4), Layout(Cluster.regular(4))))
    assert scores["largest"] == scores["a-stationary"] == scores["layout"]


def test_one_policy_alone():
    best, scores = choose(Problem(gemm(4), Layout(Cluster.regular(4))), "b-stationary")
    assert best.name == "b-stationary" and list(scores) == ["b-stationary"]


def test_no_choice_no_contest():
    best, scores = choose(Problem(aligned(), Layout(Cluster.regular(4))))
    assert best.name == "aligned" and list(scores) == ["aligned"] and best.loads.moved == 0
