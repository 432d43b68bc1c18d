"""Runs a plan's super-tasks in virtual time: what a cluster of processes does with it, the driver's part included.

The model: the driver packs its own blocks and hands over the calls one by one, in the partition's order. A worker runs its
calls one after another; each starts when it was handed over, the worker is free and the bundles it reads are there, takes
`CallCost.start_s` and its tasks' seconds over the worker's threads, and then packs what leaves. A bundle goes to its readers
over the link between them: inside the reply where it is small, through shared memory inside a node, and to another node
through the ports of both, one bundle at a time. The driver gathers results as they come, one after another.

Bytes are those of the bundles, each counted at its maker and at every worker that reads it: what a Report will say.
"""

from __future__ import annotations

import numpy as np

from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Output
from nums_core.runtime.partition import DRIVER, Call, Partition, partition
from nums_core.runtime.plan import Plan, Prediction


class _Calls:
    """A run of a partition; times are seconds from its start."""

    def __init__(self, plan: Plan, cluster: Cluster, cut: Partition, seconds: np.ndarray) -> None:
        self.cluster, self.cut = cluster, cut
        self.bytes = [float(plan.graph.out_bytes[b.blocks].sum()) for b in cut.bundles]
        self.size, self.seconds = plan.graph.out_bytes, seconds
        self.driver = cluster.call.run_s
        self.gathered = 0.0
        self.free = [0.0] * cluster.n_workers
        self.port_out, self.port_in = [0.0] * cluster.n_nodes, [0.0] * cluster.n_nodes
        self.ready: dict[int, float] = {}  # when a bundle is packed, by number
        self.there: dict[tuple[int, int], float] = {}  # when it has reached a worker
        self.busy = np.zeros(cluster.n_workers)

    def run(self) -> float:
        for call in self.cut.calls:
            for k in call.imports:
                if self.cut.bundles[k].source == DRIVER and k not in self.ready:
                    self.driver += float(self.cluster.driver.seconds(self.bytes[k]))
                    self.ready[k] = self.driver
            self.driver += self.cluster.call.submit_s
            self._call(call, self.driver)
        return max([self.driver, self.gathered, *self.free])

    def _call(self, call: Call, handed_over: float) -> None:
        w = call.worker
        start = max([handed_over, self.free[w], *(self._arrival(k, w) for k in call.imports)])
        work = self._work(call)
        self.busy[w] += work
        now = start + self.cluster.call.start_s + work
        for k in call.exports:
            now += self.bytes[k] / self.cluster.local.bytes_per_s
            self.ready[k] = now
        if len(call.results):
            n_bytes = float(self.size[call.results].sum())
            now += n_bytes / self.cluster.local.bytes_per_s
            self.gathered = max(self.gathered, self.driver, now) + float(self.cluster.gather.seconds(n_bytes))
        self.free[w] = now

    def _work(self, call: Call) -> float:
        """Seconds of a call's tasks over the threads of its worker."""
        part = self.cut.parts[call.worker]
        step = part.steps[call.step]
        each = self.seconds[self.cut.ids[call.worker][part.plan.order[step.start:step.stop]]]
        return max(float(each.sum()) / self.cluster.workers[call.worker].threads, float(each.max(initial=0.0)))

    def _arrival(self, k: int, w: int) -> float:
        """When bundle `k` is on worker `w`; the first reader there brings it."""
        if (k, w) not in self.there:
            self.there[k, w] = self._carried(k, w)
        return self.there[k, w]

    def _carried(self, k: int, w: int) -> float:
        source, n_bytes = self.cut.bundles[k].source, self.bytes[k]
        if source == DRIVER:
            return self.ready[k]
        node = self.cluster.node_of
        a, b = int(node[self.cut.calls[source].worker]), int(node[w])
        link = self.cluster.local if a == b else self.cluster.network
        if a == b or n_bytes <= link.inline_bytes:  # the copy into shared memory was part of packing
            return self.ready[k] + float(link.seconds(n_bytes)) - n_bytes / link.bytes_per_s
        sent = max(self.ready[k], self.port_out[a])
        received = max(sent, self.port_in[b])
        wire = float(link.seconds(n_bytes))
        self.port_out[a], self.port_in[b] = sent + wire, received + wire
        return received + wire


def called(plan: Plan, cluster: Cluster, seconds: np.ndarray, peaks: np.ndarray, keep: bool,
           spilled_bytes: np.ndarray) -> Prediction:
    """Prediction from a run of `plan`'s super-tasks; a few us a task, and some 10 us a call.

    `seconds` are those of each task, `peaks` and `spilled_bytes` as the simulator counted them.
    """
    cut = partition(plan, [Output((), "f8", keep)] * len(plan.graph.outputs))
    run = _Calls(plan, cluster, cut, seconds)
    total = run.run()
    into, out = cut.leaf_in.copy(), cut.leaf_out.copy()
    for bundle, n_bytes in zip(cut.bundles, run.bytes, strict=True):
        if bundle.source != DRIVER:
            out[cut.calls[bundle.source].worker] += n_bytes * len(bundle.readers)
            for r in bundle.readers:
                into[cut.calls[r].worker] += n_bytes
    return Prediction(total, into, out, peaks, run.busy, spilled_bytes)
