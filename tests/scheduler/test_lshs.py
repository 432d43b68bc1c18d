"""LSHS against the published vectors: NumS' own planner ("orig") and an independent re-implementation ("toy").

Units are elements; one worker a node, so the price inside a node does not matter.
"""

import numpy as np
import pytest

from nums_core.runtime.cluster import Cluster
from nums_core.scheduler.layout import Layout
from nums_core.scheduler.load import account
from nums_core.scheduler.lshs import search
from nums_core.scheduler.moves import list_moves
from nums_core.scheduler.policies import RULES, Problem, complete
from nums_core.scheduler.portfolio import choose

from .graphs import aligned, gemm, outer, xty

SEEDS = [0, 1, 1337]


def layout(*shape):
    return Layout(Cluster.regular(int(np.prod(shape))), "cyclic", shape)


def figures(loads):
    return loads.mem.max(), loads.into.max(), loads.out.max(), loads.moved, loads.F


def owner_computes(graph, layout, source):
    """Loads of owner-computes in the toy's terms: pairs of a Reduce make a block each."""
    problem = Problem(graph, layout)
    placed = complete(problem, RULES["owner"]).finish()
    moves = list_moves(placed.graph, placed.worker, layout.cluster, source)
    loads = account(placed.graph, placed.worker, moves, layout.cluster)
    return figures(loads._replace(mem=loads.mem + inner_results(placed)))


def inner_results(placed):
    """Bytes a worker would also hold if every task of a tree combined two blocks only: m - 2 for m inputs."""
    g = placed.graph
    extra = np.maximum(np.diff(g.in_ptr) - 2, 0)
    extra[np.array([g.families[f].kernel.name != "tree" for f in g.family_of])] = 0
    return np.bincount(placed.worker, extra * g.out_bytes)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties, moved", [("first", 7168), ("bytes", 6912)])
def test_xty_48_fifo(seed, ties, moved):
    """toy LSHS, FIFO pairs; orig: F 100608 to 101376, total 6656 to 7424."""
    found = search(xty(48), layout(16, 1), seed=seed, pairing="fifo", ties=ties)
    assert figures(found.loads) == (99584, 1280, 512, moved, 101376)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", ["first", "bytes"])
def test_xty_48_local_first(seed, ties):
    found = search(xty(48), layout(16, 1), seed=seed, pairing="local", ties=ties)
    assert figures(found.loads) == (99328, 1024, 256, 3840, 100608)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pairing", ["fifo", "local"])
def test_xty_64(seed, pairing):
    """orig: F 132352 to 133120, total 3840 to 4096."""
    found = search(xty(64), layout(16, 1), seed=seed, pairing=pairing)
    assert figures(found.loads) == (131840, 1024, 256, 3840, 133120)


def test_gemm_2x2_is_no_worse_than_the_original():
    """orig LSHS: 9, 3, 3, 9, F 15."""
    runs = [search(gemm(2), layout(2, 2), seed=s, pairing="fifo").loads for s in range(8)]
    assert min(r.F for r in runs) <= 15
    best, _ = choose(Problem(gemm(2), layout(2, 2)))
    assert best.loads.F <= 11 and best.loads.moved <= 8


@pytest.mark.parametrize("source", ["first", "relay"])
@pytest.mark.parametrize("r, g, expected", [(2, 2, (7, 2, 2, 8, 11)), (4, 8, (92, 24, 24, 384, 140))])
def test_gemm_owner_computes(r, g, expected, source):
    assert owner_computes(gemm(g), layout(r, r), source) == expected


def test_gemm_owner_computes_balanced_source():
    """toy: 624, 96, 97, 1536, F 817; relaying from the maker on round the grid balances exactly."""
    assert owner_computes(gemm(16), layout(4, 4), "relay") == (624, 96, 96, 1536, 816)


@pytest.mark.parametrize("r, g, orig", [(2, 8, 566), (4, 8, 224), (4, 16, 1338)])
def test_gemm_portfolio_beats_the_original_by_a_third(r, g, orig):
    best, scores = choose(Problem(gemm(g), layout(r, r)))
    assert best.name == "owner" and best.loads.F == min(scores.values()) < 0.67 * orig
    assert best.loads.moved == 2 * g * g * (r - 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_outer_product(seed):
    found = search(outer(16), layout(4, 4), seed=seed)
    assert figures(found.loads) == (28, 8, 28, 108, 64)
    balanced = search(outer(16), layout(4, 4), seed=seed, source="least")
    assert balanced.loads.out.max() <= 11 and balanced.loads.moved == 108


@pytest.mark.parametrize("sample", [1, 3, None])
def test_aligned_elementwise_moves_nothing(sample):
    loads = search(aligned(), layout(4, 2), sample=sample).loads
    assert figures(loads) == (loads.mem.max(), 0, 0, 0, loads.mem.max())
    assert loads.mem.sum() == aligned().out_bytes.sum()


def test_whole_frontier_is_deterministic_and_complete():
    runs = [search(gemm(3), layout(2, 2), sample=None, seed=s) for s in (0, 1)]
    assert (runs[0].worker == runs[1].worker).all() and (runs[0].worker >= 0).all()


@pytest.mark.parametrize("pairing", ["fifo", "local", "fixed"])
def test_every_root_is_at_its_layout_worker(pairing):
    for graph in (gemm(4), outer(8), xty(9)):
        at = layout(2, 2)
        found = search(graph, at, pairing=pairing)
        root = graph.families[graph.outputs[0]]
        assert (found.worker[root.start:root.stop] == at.workers(root.grid)).all()
        assert found.loads.into.sum() == found.loads.out.sum() == found.loads.moved


def test_moves_inside_a_node_are_cheaper():
    graph, cluster = xty(8), Cluster.regular(2, 2)
    dear = search(graph, Layout(cluster, "packed"), lam=1.0).loads
    cheap = search(graph, Layout(cluster, "packed"), lam=0.0).loads
    assert cheap.into.sum() == 256 and dear.into.sum() == 3 * 256
