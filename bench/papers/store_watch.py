"""How full each node's object store is, sampled while something runs.

Ray's raylets report what their stores have left some ten times a second; by default they count the first copy of a block
alone. `WATCHED` in the environment of a new cluster makes them count all copies.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy

WATCHED = {"RAY_scheduler_report_pinned_bytes_only": "0"}
LATE_S = 0.25  # what a raylet reports is older than this at most
FREED_S = 1.5  # Ray frees in batches, once a second


class Stores:
    """The object stores of `node_ids`."""

    def __init__(self, node_ids: Sequence[str]) -> None:
        from ray._private.state import total_resources_per_node

        total = total_resources_per_node()
        self.node_ids, self.size = node_ids, [total[n]["object_store_memory"] for n in node_ids]

    def used(self) -> numpy.ndarray:
        """Bytes in each store: float64, one entry a node."""
        from ray._private.state import available_resources_per_node

        left = available_resources_per_node()
        return numpy.array([size - left[n].get("object_store_memory", 0.0)
                            for n, size in zip(self.node_ids, self.size, strict=True)])

    def settled(self, timeout_s: float = 8.0) -> numpy.ndarray:
        """The same once what was let go is gone: when two readings agree."""
        deadline = time.monotonic() + timeout_s
        before = self.used()
        while time.monotonic() < deadline:
            time.sleep(FREED_S)
            now = self.used()
            if (now == before).all():
                break
            before = now
        return before


class StoreWatch:
    """Samples the stores in a thread for a `with` block.

    Attributes
    ----------
    samples : list of (seconds since the start, bytes used of each node)
    wall_s : float, time of day of the start
    """

    def __init__(self, stores: Stores, period_s: float = 0.05) -> None:
        self.stores, self.period_s = stores, period_s
        self.samples: list[tuple[float, numpy.ndarray]] = []

    def __enter__(self) -> StoreWatch:
        self.began, self.wall_s = time.perf_counter(), time.time()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        time.sleep(LATE_S)
        self._over.set()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            self.samples.append((time.perf_counter() - self.began, self.stores.used()))
            if self._over.wait(self.period_s):
                return

    @property
    def peak_bytes(self) -> numpy.ndarray:
        """Most in the store of each node at any sample."""
        return numpy.max([used for _, used in self.samples], axis=0)
