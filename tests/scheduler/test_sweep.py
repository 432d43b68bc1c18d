"""The search in waves: the same decisions as task by task where there is little to decide, and no worse by much."""

import numpy as np
import pytest

from nums_core.ops.taskgraph import GraphBuilder, Kernel
from nums_core.runtime.cluster import Cluster
from nums_core.scheduler import make_plan, portfolio
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.lshs import search
from nums_core.scheduler.policies import Problem, complete
from nums_core.scheduler.sweep import Sweep, _less

from .graphs import gemm, leaf, run_distributed


@pytest.mark.parametrize("g, shape", [(4, (2, 2)), (8, (4, 4)), (8, (2, 2))])
def test_waves_are_near_the_search(g, shape, monkeypatch):
    layout = Layout(Cluster.regular(int(np.prod(shape))), "cyclic", shape)
    problem = Problem(gemm(g), layout, "local")
    monkeypatch.setattr(portfolio, "SEARCH_TASKS", 0)
    waves, _ = portfolio.choose(problem, "lshs")
    one_by_one = np.mean([search(problem.graph, layout, seed=s).loads.F for s in range(4)])
    assert waves.loads.F <= 1.1 * one_by_one


def test_loads_are_those_of_the_placement():
    """What the waves reckoned with: every product, and every copy once."""
    problem = Problem(gemm(6), Layout(Cluster.regular(4)), "local")
    sweep = Sweep(problem)
    draft = complete(problem, sweep)
    g = problem.graph
    products = g.families[2]
    stop, edges = products.stop, g.in_ptr[products.stop]
    assert draft.choices == [2] and sweep.upto == stop
    needs = {(b, draft.place[t]) for b, t in zip(g.in_idx[:edges], g.consumer_of_edge[:edges], strict=True)
             if draft.place[b] != draft.place[t]}
    assert len(sweep.sent) == len(needs) and sweep.into.sum() == len(needs) == sweep.out.sum()
    expected = np.bincount(draft.place[:stop], g.out_bytes[:stop], 4) + np.bincount([w for _, w in needs], minlength=4)
    assert sweep.mem == pytest.approx(expected)


def test_same_seed_same_waves():
    problem = Problem(gemm(6), Layout(Cluster.regular(4)))
    a, b = (complete(problem, Sweep(problem, 7)).place for _ in range(2))
    assert (a == b).all()


def test_plans_made_in_waves_run(monkeypatch):
    monkeypatch.setattr(portfolio, "SEARCH_TASKS", 0)
    plan = make_plan(gemm(5, 3), Cluster.regular(3, 2), policy="lshs")
    plan.validate()
    run_distributed(plan)


def test_uneven_operands():
    """One task of one operand, one of two, one of three, on workers that hold them all or not."""
    b = GraphBuilder()
    x = leaf(b, 0, (3,), np.array([1.0, 4.0, 8.0]), home=np.array([0, 1, 2]))
    m = b.add(Kernel("map"), (3,), np.array([x[2], x[0], x[1], x[0], x[1], x[2]]), out_bytes=1.0, counts=np.array([1, 2, 3]))
    f = b.add(Kernel("join"), (1,), b.ids(m).reshape(1, 3), out_bytes=3.0)
    problem = Problem(b.build((f,)), Layout(Cluster.regular(3)))
    draft = complete(problem, Sweep(problem))
    assert draft.choices == [1] and draft.place[3] == 2 and draft.place[4] in (0, 1)


def test_less_is_lexical():
    a = np.array([[1, 1, 1, 1], [0, 2, 2, 2], [0, 0, 5, 5.0]])
    b = np.array([[2, 1, 1, 1], [0, 3, 2, 2], [0, 0, 6, 5.0]])
    assert _less(a, b).tolist() == [True, True, True, False]
