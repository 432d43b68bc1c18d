"""A Ray cluster of several nodes on one machine: each node is a raylet with an object store of its own.

    with simulated_cluster(nodes=4) as cluster:
        executor = RayExecutor(cluster.address)
        ...
        cluster.kill(cluster.node_ids[2])

Starting takes about 4 s a node. What Ray moves between the nodes is copied from store to store, as between machines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nums_core.errors import MissingBackendError

# A dead node is noticed within some 3 s instead of 15.
QUICK = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


class SimulatedCluster:
    """Nodes by their Ray ids.

    Parameters
    ----------
    nodes : int
    cpus_per_node : int
    object_store_bytes : int, bytes
        Of each node.
    """

    def __init__(self, nodes: int = 4, cpus_per_node: int = 1, object_store_bytes: int = 200 * 2**20) -> None:
        try:
            from ray.cluster_utils import Cluster
        except ImportError as error:
            raise MissingBackendError("a simulated Ray cluster needs the package ray, which is not installed here; "
                                      "pip install nums-core[ray]") from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._options = {"num_cpus": cpus_per_node, "object_store_memory": object_store_bytes}
        head = {**self._options, "include_dashboard": False, "_system_config": QUICK}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: dict[str, Any] = {self._cluster.head_node.node_id: self._cluster.head_node}
        for _ in range(nodes - 1):
            self.add()
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def node_ids(self) -> list[str]:
        """Ids of the nodes, the head first."""
        return list(self._nodes)

    def add(self, **options: Any) -> str:
        """One more node; returns its id. `options` are Ray's (`num_cpus`, `num_gpus`, `memory`), where it is to differ."""
        node = self._cluster.add_node(**{**self._options, **options})
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def kill(self, node_id: str) -> None:
        """End a node at once, as if its machine had lost power. Not the head: the cluster's records are there."""
        self._cluster.remove_node(self._nodes.pop(node_id), allow_graceful=False)

    def close(self) -> None:
        """End all nodes, and this process's connection to them."""
        import ray

        if ray.is_initialized():
            ray.shutdown()
        self._cluster.shutdown()


@contextmanager
def simulated_cluster(nodes: int = 4, cpus_per_node: int = 1,
                      object_store_bytes: int = 200 * 2**20) -> Iterator[SimulatedCluster]:
    """A cluster for a `with` block."""
    cluster = SimulatedCluster(nodes, cpus_per_node, object_store_bytes)
    try:
        yield cluster
    finally:
        cluster.close()
