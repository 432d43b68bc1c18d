"""A Ray cluster of several nodes on one machine, for tests: see `nums_core.runtime.executors.ray_cluster`."""

from nums_core.runtime.executors.ray_cluster import SimulatedCluster as SimulatedCluster
from nums_core.runtime.executors.ray_cluster import simulated_cluster as simulated_cluster
