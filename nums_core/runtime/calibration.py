"""Calibration: rates and links as they were measured here, for predictions alone.

Plans never depend on it: placement, cuts and orders reckon with the fixed rates of `runtime.cluster`, so that a program
has the same plan (and so the same bits) everywhere and every day.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nums_core.runtime.cluster import CallCost, Cluster, Link, Rate

VERSION = 1  # of the files; others are measured anew


@dataclass(frozen=True)
class Calibration:
    """Measured rates of one thread by class of kernels (`ops.costs`), links, and the cost of calls."""

    rates: dict[str, Rate]
    network: Link
    local: Link
    driver: Link
    gather: Link
    call: CallCost

    @classmethod
    def of(cls, cluster: Cluster) -> Calibration:
        """What is reckoned with before anything was measured."""
        return cls({}, cluster.network, cluster.local, cluster.driver, cluster.gather, cluster.call)

    def apply(self, cluster: Cluster) -> Cluster:
        """`cluster` with the measured figures. All its workers get the same rates."""
        workers = tuple(dataclasses.replace(w, rates=self.rates) for w in cluster.workers)
        return dataclasses.replace(cluster, workers=workers, network=self.network, local=self.local, driver=self.driver,
                                   gather=self.gather, call=self.call)

    def save(self, path: Path) -> None:
        """Write to `path`; what was there stays if that fails."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"version": VERSION, **dataclasses.asdict(self)}, file, indent=1)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise

    @classmethod
    def load(cls, path: Path) -> Calibration | None:
        """What `save` wrote; None where there is nothing, or nothing that this version reads."""
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if found.pop("version") != VERSION:
                return None
            links = {name: Link(**found[name]) for name in ("network", "local", "driver", "gather")}
            rates = {name: Rate(*rate) for name, rate in found["rates"].items()}
            return cls(rates, call=CallCost(*found["call"]), **links)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def path_for(cluster: Cluster) -> Path:
    """The file for clusters like this one, in the user's cache folder (`XDG_CACHE_HOME`, or ~/.cache)."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    threads = sorted({w.threads for w in cluster.workers})
    name = (f"{platform.node()}-{cluster.kind}-{cluster.n_nodes}x{cluster.workers_per_node}"
            f"-{'.'.join(map(str, threads))}.json")
    return base / "nums_core" / "calibration" / name
