"""Workers that come and go between runs.

Workers are known by their numbers: in plans, in the homes of persisted arrays, in what each of them knows. Those that join
get the next numbers, so nothing that exists changes. When some leave, those after them move up, and each that left has an
*heir*: homes are written anew, and a plan of before is translated when it runs, or when a part of it runs again because what
it made is lost. Both follow the same table, so that lost blocks are made where their home is. Nobody is renumbered while a
run is in progress.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from nums_core.runtime.cluster import Cluster
from nums_core.runtime.plan import Plan, direct_moves

if TYPE_CHECKING:
    from nums_core.runtime.executors.clustered import RemoteHeld

Method = TypeVar("Method", bound=Callable[..., Any])


def steady(method: Method) -> Method:
    """Workers keep their numbers while `method` runs."""
    @functools.wraps(method)
    def steadily(self: Renumbering, *args: Any, **keywords: Any) -> Any:
        with self.lock:
            self.busy += 1
        try:
            return method(self, *args, **keywords)
        finally:
            with self.lock:
                self.busy -= 1
    return cast(Method, steadily)


class Renumbering:
    """The part of a cluster executor that lets its workers change.

    Attributes
    ----------
    busy : int
        Runs and fetches in progress.
    held : weak dict number -> RemoteHeld
        Persisted arrays that somebody still has.
    """

    cluster: Cluster
    generation: list[int]
    deaths: int
    ended: set[int]
    lock: Any
    _shares: Any
    _ask: Callable[..., Any]

    def __init__(self) -> None:
        self.busy = 0
        self.held: weakref.WeakValueDictionary[int, RemoteHeld] = weakref.WeakValueDictionary()
        # Clusters of before, with the number that each of their workers, or its heir, has now.
        self._earlier: list[tuple[weakref.ref[Cluster], np.ndarray]] = []
        self._translated: weakref.WeakKeyDictionary[Plan, Plan] = weakref.WeakKeyDictionary()

    def refresh(self) -> None:
        """Notice workers that came or went. Called before every plan is looked up, so it must be cheap."""

    def renumber(self, stay: Sequence[int], cluster: Cluster) -> None:
        """Go on as `cluster`: workers `stay` of those before, in ascending order, then new ones.

        Some may be left out only while nothing is `busy`. Blocks that they hold are lost: made again when they are used.
        """
        with self.lock:
            number = np.full(self.cluster.n_workers, -1, np.int32)
            number[list(stay)] = np.arange(len(stay))
            heir = np.where(number < 0, np.arange(len(number)) % cluster.n_workers, number).astype(np.int32)
            self._earlier = [(c, heir[n]) for c, n in self._earlier if c() is not None]
            self._earlier.append((weakref.ref(self.cluster), heir))
            self.generation = [self.generation[w] for w in stay] + [0] * (cluster.n_workers - len(stay))
            if len(stay) < self.cluster.n_workers:
                self._move_up(number, heir)
            self.cluster = cluster
            for w in range(cluster.n_workers):
                if w >= len(stay) or stay[w] != w:
                    self._ask(w, "renumber", w)

    def _move_up(self, number: np.ndarray, heir: np.ndarray) -> None:
        """Workers get new numbers; -1: it left."""
        self._shares.clear()  # workers know their parts by numbers of before
        self._translated.clear()
        self.deaths += int((number < 0).sum())
        self.ended = {int(number[w]) for w in self.ended if number[w] >= 0}
        for held in self.held.values():
            held.generation[number[held.home] < 0] = -1
            held.home = heir[held.home]

    def renumbered(self, plan: Plan) -> Plan:
        """`plan` with the numbers that workers have now; the same object each time."""
        with self.lock:
            now = next((n for c, n in self._earlier if c() is plan.cluster), None)
            if now is None or (now == np.arange(len(now))).all():
                return plan
            if plan not in self._translated:
                worker = now[plan.worker]
                block, src, dst = direct_moves(plan.graph, worker)
                self._translated[plan] = replace(plan, cluster=self.cluster, worker=worker, move_block=block, move_src=src,
                                                 move_dst=dst)
            return self._translated[plan]

    def holders(self) -> set[int]:
        """Workers that hold blocks of persisted arrays."""
        return {int(w) for held in self.held.values() for w in np.unique(held.home[held.generation >= 0])}
