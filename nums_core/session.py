"""Session: the one place where graph, scheduler and runtime meet: compile, cache, run.

    expressions -> key of their structure -> plan (from the cache, or optimise + lower + schedule) -> executor

A plan is kept by the *structure* of the expressions: operations, shapes, grids, where inputs lie. Data are not part of it,
so the second iteration of a loop plans nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nums_core import config
from nums_core.errors import ConfigError
from nums_core.expr.grid import Chunks, known
from nums_core.expr.lower import lower
from nums_core.expr.marks import differentiated
from nums_core.expr.node import Expr, Source, postorder
from nums_core.expr.opaque import Opaque
from nums_core.expr.optimise import optimise
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.executors.base import Executor, Held, Output
from nums_core.runtime.plan import Plan, Prediction
from nums_core.runtime.report import Report

if TYPE_CHECKING:
    from nums_core.runtime.calibration import Calibration

EXPLAINED_TASKS = 20_000  # up to so many tasks, what is explained was simulated event by event: some 10 us each


@dataclass
class Compiled:
    """A plan with what it cost to make, and what is expected of it (by whether results are kept), once somebody asked."""

    plan: Plan
    optimise_s: float
    plan_s: float
    predicted: dict[bool, Prediction] = field(default_factory=dict)


class Session:
    """An executor with its plan cache and last report."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.plans: OrderedDict[Any, Compiled] = OrderedDict()
        self.plans_made = 0
        self.last_report: Report | None = None
        self.calibration: Calibration | None = None
        self._lock = threading.RLock()
        self._refresh: Callable[[], None] = getattr(executor, "refresh", lambda: None)

    @property
    def cluster(self) -> Cluster:
        """What plans are made for now. Workers may come and go between runs, and each time this is another object."""
        self._refresh()
        return self.executor.cluster

    def compiled(self, roots: Sequence[Expr]) -> tuple[Compiled, list[Source], bool]:
        """The plan for `roots`, its inputs in order, and whether it came from the cache."""
        cluster = self.cluster
        key, sources = structure(roots)
        c = config.get()
        # The identity of a cluster will do: plans in the cache hold theirs, so that no other takes its place in memory.
        key = (key, id(cluster), c.policy, c.layout, c.reduction_order, c.seed, c.merge_bytes, c.block_bytes)
        with self._lock:
            found = self.plans.get(key)
            if found is not None:
                self.plans.move_to_end(key)
                return found, sources, True
            made = self.plans[key] = self._compile(roots, sources, cluster)
            self.plans_made += 1
            while len(self.plans) > max(c.plan_cache_size, 1):
                self.plans.popitem(last=False)
        return made, sources, False

    def _compile(self, roots: Sequence[Expr], sources: list[Source], cluster: Cluster) -> Compiled:
        from nums_core.scheduler import make_plan

        start = time.perf_counter()
        graph = lower(optimise(roots), {s: i for i, s in enumerate(sources)})
        lowered = time.perf_counter()
        c = config.get()
        plan = make_plan(graph, cluster, policy=c.policy, layout=c.layout,
                         reduction_order=c.reduction_order, seed=c.seed)
        return Compiled(plan, lowered - start, time.perf_counter() - lowered)

    def run(self, roots: Sequence[Expr], *, keep: bool, donate: frozenset[Source] = frozenset()) -> list[Any]:
        """Compute `roots`: NumPy arrays, or with `keep` the blocks where they were made (`Held`)."""
        began = time.perf_counter()
        compiled, sources, reused = self.compiled(roots)
        looked_up = time.perf_counter() - began
        outputs = [_output(r, keep) for r in roots]
        results, report = self.executor.run(
            compiled.plan, [s.data for s in sources], outputs,
            frozenset(i for i, s in enumerate(sources) if s in donate))
        report.plan_reused = reused
        report.optimise_s, report.plan_s = (0.0, looked_up) if reused else (compiled.optimise_s, compiled.plan_s)
        if self.calibration is not None:
            report.predicted_s = self.predicted(compiled, keep).seconds
        self.last_report = report
        return results

    def explain(self, roots: Sequence[Expr]) -> Plan:
        """The plan that computing `roots` would run, with what the simulator expects of it."""
        compiled = self.compiled(roots)[0]
        return dataclasses.replace(compiled.plan, prediction=self.predicted(compiled))

    def calibrate(self, found: Calibration | None) -> None:
        """Predict with measured rates from here on, or (None) with the fixed ones again."""
        self.calibration = found
        for compiled in self.plans.values():
            compiled.predicted.clear()

    def predicted(self, compiled: Compiled, keep: bool = False) -> Prediction:
        """What the simulator expects of a plan; worked out when first asked."""
        from nums_core.scheduler.simulate import simulate

        if keep not in compiled.predicted:
            plan = compiled.plan
            cluster = plan.cluster if self.calibration is None else self.calibration.apply(plan.cluster)
            exact = plan.graph.n_tasks <= EXPLAINED_TASKS
            compiled.predicted[keep] = simulate(plan, exact=exact, keep=keep, cluster=cluster)
        return compiled.predicted[keep]

    def trial(self, roots: Sequence[Expr], cluster: Cluster | None = None) -> Plan:
        """A plan for `roots` that is not kept, for comparing; for another cluster if one is given."""
        return self._compile(roots, structure(roots)[1], cluster or self.cluster).plan


def _output(root: Expr, keep: bool) -> Output:
    """What is wanted of one root; a structured dtype has no text of its own."""
    return Output(root.chunks, root.dtype.str if root.dtype.kind != "V" else root.dtype, keep)  # type: ignore[arg-type]


def structure(roots: Sequence[Expr]) -> tuple[Any, list[Source]]:
    """A hashable key of what `roots` are made of, and their sources in order of first use. About 1 us a node."""
    number: dict[int, int] = {}
    sources: dict[Source, int] = {}
    parts: list[Any] = []
    for node in postorder(roots):
        if node.op == "leaf":
            source, region = node.params
            slot = sources.setdefault(source, len(sources))
            where = source.data.home.tobytes() if source.kind == "held" else getattr(source.data, "read_label", None)
            parts.append(("leaf", source.kind, slot, region, source.shape, node.dtype, node.chunks, where))
        else:
            parts.append((node.op, node.params, node.dtype, node.chunks, *[number[id(a)] for a in node.args]))
        number[id(node)] = len(number)
    return (tuple(parts), tuple(number[id(r)] for r in roots)), list(sources)


# -- the session in force ---------------------------------------------------------------------------------------------

_session: Session | None = None
_lock = threading.RLock()


def current() -> Session:
    """The session in force; a local one is started when first needed."""
    global _session
    if _session is None:
        with _lock:
            if _session is None:
                from nums_core.runtime.executors.local import from_config

                _session = Session(from_config())
    return _session


def init(address: str | None = None, *, ray: Any = None, dask: Any = None, executor: Executor | None = None,
         threads: int | None = None, memory: int | str | None = None, elastic: bool | None = None) -> Session:
    """Choose where arrays are computed, from here on.

    Parameters
    ----------
    address : str, optional
        "local" (default), or a Ray address: "auto", "host:port", "ray://host:port".
    ray : dict or True, optional
        Options of the Ray executor, such as `dict(num_workers=4)`; True for its defaults.
    dask : distributed.Client, optional
    executor : Executor, optional
        One made elsewhere.
    threads : int, optional
        Of the local executor; one a core if not given.
    memory : int or text, bytes, optional
        Budget of a worker, as in "4GiB".
    elastic : bool, optional
        Whether nodes that join the Ray cluster later are used, and those that leave forgotten. Default: on clusters that
        were joined, not on those started here.

    Returns
    -------
    Session
        Also a context manager: leaving it closes the executor and goes back to local threads.

    Raises
    ------
    ConfigError
        More than one place was named.
    MissingBackendError
        Ray or Dask is not installed.
    """
    chosen = [name for name, given in (("address", address), ("ray", ray), ("dask", dask), ("executor", executor))
              if given is not None and given is not False]
    if len(chosen) > 1 and set(chosen) != {"address", "ray"}:
        raise ConfigError(f"init() got {' and '.join(chosen)}; name one place to compute")
    memory_bytes = config.parse_bytes(memory) if memory is not None else config.get().memory_bytes
    if executor is None:
        executor = _make_executor(address, ray, dask, threads, memory_bytes, elastic)
    return use(executor)


def _make_executor(address: str | None, ray: Any, dask: Any, threads: int | None, memory_bytes: int,
                   elastic: bool | None) -> Executor:
    if dask is not None:
        from nums_core.runtime.executors.dask import DaskExecutor

        return DaskExecutor(dask, memory_bytes=memory_bytes)
    if ray or (address not in (None, "local")):
        from nums_core.runtime.executors.ray import RayExecutor

        options = dict(ray) if isinstance(ray, dict) else {}
        if address not in (None, "local"):
            options["address"] = address
        if memory_bytes:
            options.setdefault("memory_bytes", memory_bytes)
        if elastic is not None:
            options["elastic"] = elastic
        shutdown()  # a process has one connection to Ray, and the executor in force may close it
        return RayExecutor(**options)
    from nums_core.runtime.executors.local import LocalExecutor

    return LocalExecutor(config.get().threads if threads is None else threads, memory_bytes)


class _Using(Session):
    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        shutdown()


def use(executor: Executor) -> Session:
    """Make `executor` the one in force; the one before is closed."""
    global _session
    with _lock:
        before, _session = _session, _Using(executor)
    if before is not None:
        before.executor.close()
    return _session


def shutdown() -> None:
    """Close the executor in force; the next computation starts a local one."""
    global _session
    with _lock:
        before, _session = _session, None
    if before is not None:
        before.executor.close()


# -- compute, persist, jit on arrays ----------------------------------------------------------------------------------

def evaluate(roots: Sequence[Expr]) -> list[Any]:
    """NumPy arrays of `roots`, in one run."""
    return current().run(roots, keep=False)


def keep(roots: Sequence[Expr], donate: frozenset[Source] = frozenset()) -> list[Expr]:
    """Leaves whose blocks are computed and stay where they were made."""
    return [held_leaf(h, r) for h, r in zip(current().run(roots, keep=True, donate=donate), roots, strict=True)]


def held_leaf(held: Held, like: Expr) -> Expr:
    """A leaf over kept blocks; extents that depended on data are known now."""
    from nums_core.expr.build import leaf

    chunks = like.chunks if known(like.chunks) else _measured(held, like)
    shape = like.shape if chunks is like.chunks else tuple(map(sum, chunks))
    return leaf(Source("held", held, shape, like.dtype), chunks, like.line)


def _measured(held: Held, like: Expr) -> Chunks:
    """Chunks read off the blocks themselves."""
    shapes = held.shapes or [b.shape for b in current().executor.fetch(held)]
    by_block = np.array(shapes, np.int64).reshape(*like.grid, like.ndim)
    return tuple(tuple(by_block[tuple(slice(None) if i == axis else 0 for i in range(like.ndim))][:, axis].tolist())
                 for axis in range(like.ndim))


def stored(kept: Expr, source: Any) -> None:
    """The blocks of a leaf made by `keep` stand in `source` too, and are read from there where a worker loses them."""
    executor = current().executor
    if kept.op == "leaf" and hasattr(executor, "stored"):
        executor.stored(kept.params[0].data, source, _output(kept, True))


def last_report() -> Report | None:
    """The report of the last run."""
    return current().last_report


def jit(function: Callable[..., Any] | None = None, *, donate: Sequence[int] = ()) -> Callable[..., Any]:
    """Plan `function` once for each signature of its arguments and replay it; results stay distributed (persisted).

    Arguments and results may be arrays, or tuples, lists, dicts and other containers of them (see `flatten`); other
    arguments are static and must be hashable. The function must build the same expressions for arguments of the same
    shape, dtype and grid.

    Parameters
    ----------
    donate : positions of arguments whose blocks the results may overwrite. They must not be used afterwards.
    """
    if function is None:
        return functools.partial(jit, donate=donate)
    return functools.update_wrapper(_Jitted(function, tuple(donate)), function)


class _Jitted:
    """A function with its traces: one plan a signature."""

    def __init__(self, function: Callable[..., Any], donate: tuple[int, ...]) -> None:
        self.function, self.donate = function, donate
        self.traces: dict[Any, _Trace] = {}

    def __call__(self, *args: Any) -> Any:
        began = time.perf_counter()
        flat, shape_of_args = flatten(args)
        arrays = [x for x in flat if hasattr(x, "expr")]
        if differentiated([x.expr for x in arrays if x.expr.op != "leaf"]):
            return self.function(*args)  # part of a function that is being differentiated, and of its plan
        leaves = _as_leaves(arrays)
        session = current()
        key = (id(session), id(session.cluster), shape_of_args, tuple(_signature(x) for x in flat), _pattern(leaves))
        trace = self.traces.get(key)
        if trace is None or trace.session is not session:
            trace = self.traces[key] = _Trace(session, self.function, args, leaves)
        return trace.replay(leaves, self._donated(args), began)

    def _donated(self, args: tuple[Any, ...]) -> frozenset[Source]:
        out: set[Source] = set()
        for k in self.donate:
            for x in flatten((args[k],))[0]:
                if hasattr(x, "expr") and x.expr.op == "leaf" and x.expr.params[0].kind == "held":
                    out.add(x.expr.params[0])
        return frozenset(out)


def _as_leaves(arrays: list[Any]) -> list[Expr]:
    """Arguments that are not computed yet are computed and kept, together."""
    lazy = [x for x in arrays if x.expr.op != "leaf"]
    if lazy:
        for x, kept in zip(lazy, keep([x.expr for x in lazy]), strict=True):
            x._expr = kept
    return [x.expr for x in arrays]


def _signature(x: Any) -> Any:
    if not hasattr(x, "expr"):
        try:
            hash(x)
        except TypeError:
            raise TypeError(f"jit() got an argument of type {type(x).__name__}, which is neither an array nor hashable; pass "
                            "arrays as Arrays (asarray(x)) and settings as numbers, text or tuples") from None
        return Opaque(x)  # tells 1 from 1.0 and True, and 0.0 from -0.0
    e = x.expr
    source, region = e.params
    where = source.data.home.tobytes() if source.kind == "held" else None
    return (source.kind, e.shape, e.dtype, e.chunks, region, source.shape, where)


def _pattern(leaves: list[Expr]) -> tuple[int, ...]:
    """Which arguments are the same array."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(id(e.params[0]), k) for k, e in enumerate(leaves))


class _Trace:
    """One signature of a jitted function: its plan, and how to bind new arguments."""

    def __init__(self, session: Session, function: Callable[..., Any], args: Any, leaves: list[Expr]) -> None:
        self.session = session
        results, self.shape_of_results = flatten(function(*args))
        self.wrap = [type(r) if hasattr(r, "expr") else None for r in results]
        self.static = [None if hasattr(r, "expr") else r for r in results]
        roots = [r.expr for r in results if hasattr(r, "expr")]
        self.likes = roots
        self.compiled, sources, self.reused = session.compiled(roots)
        position = {e.params[0]: k for k, e in enumerate(leaves)}
        # Sources that are not arguments are constants of the trace.
        self.bind: list[int | Source] = [position.get(s, s) for s in sources]
        self.outputs = [_output(r, True) for r in roots]
        self.first = True

    def replay(self, leaves: list[Expr], donate: frozenset[Source], began: float) -> Any:
        """Run the plan on new arguments. `began` is when the call did: all before the run counts as planning."""
        sources = [leaves[b].params[0] if isinstance(b, int) else b for b in self.bind]
        slots = frozenset(i for i, s in enumerate(sources) if s in donate) if donate else frozenset()
        bound_s = time.perf_counter() - began
        held, report = self.session.executor.run(self.compiled.plan, [s.data for s in sources], self.outputs, slots)
        report.plan_reused = not self.first or self.reused
        report.optimise_s = 0.0 if report.plan_reused else self.compiled.optimise_s
        report.plan_s = bound_s if report.plan_reused else max(bound_s - report.optimise_s, 0.0)
        self.first = False
        self.session.last_report = report
        made = iter([held_leaf(h, like) for h, like in zip(held, self.likes, strict=True)])
        flat = [s if w is None else w(next(made)) for w, s in zip(self.wrap, self.static, strict=True)]
        return unflatten(flat, self.shape_of_results)


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Leaves of nested containers, and a hashable description of the nesting.

    Containers are tuples, lists, dicts, None (which holds nothing), and objects with a method `tree_flatten()` that
    returns (list of children, hashable rest) and a class method `tree_unflatten(rest, children)` that undoes it."""
    if tree is None:
        return [], None
    if isinstance(tree, (tuple, list)):
        parts = [flatten(x) for x in tree]
        return [x for flat, _ in parts for x in flat], (type(tree), *[d for _, d in parts])
    if isinstance(tree, dict):
        keys = list(tree)
        flat, inner = flatten([tree[k] for k in keys])
        return flat, (dict, tuple(keys), inner)
    if hasattr(type(tree), "tree_flatten"):
        children, rest = tree.tree_flatten()
        flat, inner = flatten(list(children))
        return flat, (type(tree), rest, inner)
    return [tree], "*"


def unflatten(flat: list[Any], description: Any) -> Any:
    """The nesting that `flatten` described, with these leaves."""
    return _take(iter(flat), description)


def _take(leaves: Any, description: Any) -> Any:
    if description is None:
        return None
    if description == "*":
        return next(leaves)
    kind = description[0]
    if kind is dict:
        return dict(zip(description[1], _take(leaves, description[2]), strict=True))
    if hasattr(kind, "tree_unflatten"):
        return kind.tree_unflatten(description[1], _take(leaves, description[2]))
    parts = [_take(leaves, d) for d in description[1:]]
    if hasattr(kind, "_fields"):  # a named tuple takes its fields one by one
        return kind(*parts)
    return tuple(parts) if issubclass(kind, tuple) else parts
