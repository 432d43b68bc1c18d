"""One ordinary Ray task a block: an executor that leaves placement to Ray, to compare ours with.

It runs the tasks of a Plan, kernel for kernel, so results are the same to the bit; what differs is who decides where.
Blocks lie in Ray's object stores, references are dropped once their last reader is submitted, and no task carries any
option: Ray's default policy prefers the node that holds most of a task's arguments. With `node_ids` each task is pinned
to the node that the plan names, which is how NumS itself runs its schedules on Ray.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nums_core.ops.taskgraph import LEAF, Family
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Held, Output, viewed
from nums_core.runtime.gather import Destination
from nums_core.runtime.plan import Plan
from nums_core.runtime.report import Report
from nums_core.runtime.sources import portable


class Ran(NamedTuple):
    """When a task ran and on which node; of a leaf, the nodes that hold it already."""

    node_ids: tuple[str, ...]
    start_s: float  # time of day
    stop_s: float


def task_of(kernel: Any, source: Any) -> Any:
    """The function of a task: `task(args, *blocks)`. `source` is what a "read" kernel reads, else None."""
    compiled: list[Any] = []  # in each of Ray's worker processes, which keep the function

    def task(args: Any, *blocks: Any) -> Any:
        if not compiled:
            compiled.append(_function(kernel, source))
        with numpy.errstate(all="ignore"):
            return compiled[0](args, list(blocks))
    return task


def observed(task: Any) -> Any:
    """The same function, which also says where and when it ran."""
    def run(*arguments: Any) -> Any:
        began = time.time()
        block = task(*arguments)
        return block, Ran((ray.get_runtime_context().get_node_id(),), began, time.time())
    return run


def _function(kernel: Any, source: Any) -> Any:
    from nums_core.runtime.devices.numpy import compile_kernel
    from nums_core.runtime.supertask import _reader

    return compile_kernel(kernel) if source is None else _reader(source, kernel)


class RayTasks:
    """An `Executor` on the Ray cluster that this process is connected to.

    Parameters
    ----------
    cluster : Cluster
        What plans are made for.
    node_ids : sequence of str, optional
        Ray's id of each worker's node: tasks are pinned there. Default: Ray decides.

    Attributes
    ----------
    holding : list of refs or None
        A list: the refs of every block that runs from here on touch are added to it (and so none is freed).
    observed : list of dicts task -> Ran, or None
        A list: each run adds where and when its tasks ran.
    """

    def __init__(self, cluster: Cluster, node_ids: Sequence[str] | None = None) -> None:
        self.cluster, self.node_ids = cluster, node_ids
        self.holding: list[Any] | None = None
        self.observed: list[dict[int, Ran]] | None = None
        self._known: weakref.WeakKeyDictionary[Plan, dict[tuple[int, bool], list[Any]]] = weakref.WeakKeyDictionary()

    def run(self, plan: Plan, inputs: Sequence[Any], outputs: Sequence[Output],
            donate: frozenset[int] = frozenset()) -> tuple[list[Any], Report]:
        began = time.perf_counter()
        refs, told = self._submit(plan, inputs)
        wanted = [r for f in plan.graph.outputs for r in self._rows(plan, refs, f)]
        if wanted:
            ray.wait(wanted, num_returns=len(set(wanted)), fetch_local=False)
        report = Report(run_s=time.perf_counter() - began, n_tasks=int((~plan.graph.is_leaf).sum()),
                        flop=float(plan.graph.flop.sum()), policy="pinned" if self.node_ids else "Ray's own",
                        bytes_moved=float("nan"))
        if self.observed is not None:
            ran = {t: r for t, r in told.items() if not isinstance(r, Ran)}
            self.observed.append(told | dict(zip(ran, ray.get(list(ran.values())), strict=True)))
        results = [self._result(plan, f, self._rows(plan, refs, f), o)
                   for f, o in zip(plan.graph.outputs, outputs, strict=True)]
        return results, report

    def fetch(self, held: Held) -> list[numpy.ndarray]:
        return ray.get(held.refs)

    def close(self) -> None:
        """Holds nothing of its own."""

    @staticmethod
    def _rows(plan: Plan, refs: list[Any], family: int) -> list[Any]:
        f = plan.graph.families[family]
        return refs[f.start:f.stop]

    def _result(self, plan: Plan, family: int, refs: list[Any], output: Output) -> Any:
        f = plan.graph.families[family]
        if output.keep:
            return Held(refs, plan.worker[f.start:f.stop].copy(), float(plan.graph.out_bytes[f.start:f.stop].sum()), self)
        return numpy.array(Destination(output).collect(ray.get(refs)))

    def _submit(self, plan: Plan, inputs: Sequence[Any]) -> tuple[list[Any], dict[int, Any]]:
        """Refs of all blocks (None where they were let go), and refs of where each task ran, if that is wanted."""
        g, functions = plan.graph, self._functions(plan, inputs)
        refs: list[Any] = [None] * g.n_tasks
        args: list[Any] = [None] * g.n_tasks
        told: dict[int, Any] = {}
        for f in g.families:
            if f.role == LEAF:
                refs[f.start:f.stop] = self._leaves(f, inputs)
                if self.observed is not None:
                    told.update(zip(range(f.start, f.stop), _holders(refs[f.start:f.stop]), strict=True))
            elif f.args is not None:
                args[f.start:f.stop] = f.args
        family, worker, keep = g.family_of.tolist(), plan.worker.tolist(), g.is_output.tolist()
        readers = numpy.bincount(g.in_idx, minlength=g.n_tasks).tolist()
        idx, ptr = g.in_idx.tolist(), g.in_ptr.tolist()
        for t in plan.order.tolist():
            operands = idx[ptr[t]:ptr[t + 1]]
            if family[t] in functions:
                function = functions[family[t]][worker[t] if self.node_ids else 0]
                made = function.remote(args[t], *[refs[b] for b in operands])
                refs[t] = made if self.observed is None else made[0]
                if self.observed is not None:
                    told[t] = made[1]
            if self.holding is not None:
                self.holding.append(refs[t])
            for b in operands:
                readers[b] -= 1
                if not readers[b] and not keep[b]:
                    refs[b] = None
        return refs, told

    def _functions(self, plan: Plan, inputs: Sequence[Any]) -> dict[int, list[Any]]:
        """Remote functions by family: one, or one pinned to each worker's node. They are kept with the plan, since Ray ships
        each function once."""
        known = self._known.setdefault(plan, {})
        for k, f in enumerate(plan.graph.families):
            reads = f.kernel.name == "read"
            if f.role != LEAF and (reads or (k, self.observed is None) not in known):
                task = task_of(f.kernel, portable(inputs[f.kernel.params[0]]) if reads else None)
                known[k, self.observed is None] = self._remotes(task)
        return {k: r for (k, plain), r in known.items() if plain == (self.observed is None)}

    def _remotes(self, task: Any) -> list[Any]:
        kind = ray.remote(task) if self.observed is None else ray.remote(num_returns=2)(observed(task))
        if not self.node_ids:
            return [kind]
        return [kind.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=False)) for n in self.node_ids]

    def _leaves(self, f: Family, inputs: Sequence[Any]) -> list[Any]:
        given = inputs[f.kernel.params[0]]
        if isinstance(given, Held):
            return given.refs if given.owner is self else [ray.put(b) for b in given.owner.fetch(given)]
        array = viewed(given, f.kernel)
        return [ray.put(numpy.array(array[at])) for at in f.args or ()]


def _holders(refs: list[Any]) -> list[Ran]:
    found = ray.experimental.get_object_locations(refs)
    return [Ran(tuple(found.get(r, {}).get("node_ids") or ()), 0.0, 0.0) for r in refs]


def copied_bytes(refs: Sequence[Any]) -> float:
    """Bytes of the copies that Ray made of blocks, by its own records: sum of (copies - 1) * size.

    Blocks under 100 KB travel inside replies and calls and are not in it.
    """
    refs = list(dict.fromkeys(r for r in refs if r is not None))
    found = ray.experimental.get_object_locations(refs) if refs else {}
    return float(sum(max(len(f["node_ids"]) - 1, 0) * (f["object_size"] or 0) for f in found.values()))
