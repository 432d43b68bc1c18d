"""A Ray cluster as plans see it: what each node has, and what its workers get of it. No Ray is needed."""

from __future__ import annotations

import pytest

from nums_core.errors import ConfigError
from nums_core.runtime.executors.ray_nodes import MEMORY_SHARE, UNTOLD_BYTES, Node, cluster_of, usable, wanted

GIB = 2**30


def row(name, alive=True, **resources):
    """A row of `ray.nodes()`."""
    return {"NodeID": name, "Alive": alive, "NodeManagerAddress": "10.0.0." + name[-1], "NodeManagerPort": 7000,
            "Resources": {k.replace("head", "node:__internal_head__"): v for k, v in resources.items()}}


def test_nodes_are_described():
    (node,) = usable([row("n1", CPU=5.0, GPU=2.0, memory=float(8 * GIB), object_store_memory=float(3 * GIB), head=1.0)])
    assert node == Node("n1", "10.0.0.1:7000", 5, 2, 8 * GIB, 3 * GIB, head=True)


def test_what_a_node_does_not_tell_is_assumed():
    (node,) = usable([row("n1", CPU=1.0)])
    assert (node.memory_bytes, node.store_bytes, node.gpus, node.head) == (UNTOLD_BYTES, 0, 0, False)


def test_dead_nodes_and_nodes_without_cores_are_left_out_and_the_head_comes_first():
    table = [row("n4", CPU=1.0), row("n3", CPU=2.0), row("n1", False, CPU=9.0), row("n2", GPU=1.0, memory=1.0),
             row("n9", CPU=1.0, head=1.0)]
    assert [n.id for n in usable(table)] == ["n9", "n3", "n4"]


def test_no_node_with_a_core():
    with pytest.raises(ConfigError, match="start it with num_cpus of 1 or more"):
        wanted(usable([row("n1", GPU=1.0)]), 0, 0, 0, 0)


@pytest.mark.parametrize(("cpus", "options", "threads"), [
    ([4], (0, 0, 0), [1, 1, 1, 1]),         # one node: a worker a core
    ([4], (2, 0, 0), [2, 2]),
    ([5], (2, 0, 0), [3, 2]),               # cores that do not divide go to the first
    ([1], (3, 0, 0), [1, 1, 1]),            # more workers than cores, if that is what is asked for
    ([4, 2], (0, 0, 0), [4, 2]),            # several nodes: a worker each, with all of its cores
    ([4, 2], (9, 0, 0), [4, 2]),            # num_workers is for one node
    ([4, 3], (0, 2, 0), [2, 2, 2, 1]),
    ([4, 3], (0, 2, 8), [8, 8, 8, 8])])
def test_threads_are_the_cores_of_the_node(cpus, options, threads):
    nodes = [Node(f"n{k}", f"a{k}", c) for k, c in enumerate(cpus)]
    made = wanted(nodes, *options, 0)
    assert [w.threads for n in nodes for w in made.workers(n)] == threads


def test_memory_is_shared_among_the_workers_of_a_node():
    small, large = (Node(f"n{g}", f"a{g}", 2, gpus=g, memory_bytes=g * 10 * GIB, store_bytes=g * GIB) for g in (1, 3))
    made = wanted([small, large], 0, 2, 0, 0)
    workers = [w for n in (small, large) for w in made.workers(n)]
    assert [w.memory_bytes for w in workers] == [int(MEMORY_SHARE * b * GIB) for b in (5, 5, 15, 15)]
    assert [w.gpus for w in workers] == [1, 0, 2, 1]
    assert [w.store_bytes for w in workers] == [GIB // 2] * 2 + [3 * GIB // 2] * 2
    assert {w.memory_bytes for n in (small, large) for w in wanted([small], 0, 2, 0, GIB).workers(n)} == {GIB}


def test_neighbours_on_one_node_are_its_workers():
    nodes = [Node(f"n{k}", f"a{k}", 2) for k in range(3)]
    made = wanted(nodes, 0, 2, 0, 0)
    workers = [w for n in nodes for w in made.workers(n)]
    cluster = cluster_of(workers, [n.id for n in nodes for _ in range(2)])
    assert cluster.node_of.tolist() == [0, 0, 1, 1, 2, 2] and cluster.kind == "ray"
    # A worker that was started again elsewhere keeps its place.
    assert cluster_of(workers[:4], ["n0", "n0", "n1", "n0"]).node_of.tolist() == [0, 0, 1, 2]
