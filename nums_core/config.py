"""Settings: one frozen object, one environment prefix (`NUMS_`), one context manager.

    nums_core.config.set(block_bytes="32MiB")          # from here on
    with nums_core.config.set(threads=1): ...          # for a block of code
    NUMS_THREADS=4 python script.py                    # for a process
"""

from __future__ import annotations

import dataclasses
import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from nums_core.errors import ConfigError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_bytes(value: int | float | str) -> int:
    """Bytes from a number or a text such as ``"512MiB"``."""
    if isinstance(value, (int, float)):
        return int(value)
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([a-zA-Z]*)\s*", value)
    if match is None or match[2].lower() not in _UNITS:
        raise ConfigError(f"{value!r} is not a size; write a number of bytes or one with a unit, as in '512MiB'")
    return int(float(match[1]) * _UNITS[match[2].lower()])


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings, with their defaults.

    Attributes
    ----------
    block_bytes : int, bytes
        Aim for the size of a block when `chunks="auto"`. It does not depend on the machine, so that the same program
        has the same grid, and so the same bits, everywhere.
    merge_bytes : int, bytes
        Smaller blocks of arrays in memory are read together by reductions; 0 keeps every block a task.
    threads : int
        Threads of the local executor; 0 means one a core.
    memory_bytes : int, bytes
        Budget of the local executor for blocks it makes itself; 0 means 60 % of the machine's memory.
    spill_dir : str
        Folder for blocks that do not fit; "" means the system's folder for temporary files.
    reduction_order : "fixed" or "local"
        "fixed": the tree of a floating-point reduction depends on the grid alone (the same bits on any cluster).
        "local": the planner pairs what lies on the same worker first (never more than k-1 partials move).
    layout : "packed" or "cyclic"
        How blocks are dealt to workers: contiguous runs, or round-robin.
    policy : str
        "portfolio", or the name of one scheduling policy.
    implicit_compute : bool
        Whether `float(x)`, `bool(x)`, `np.asarray(x)` and the like may compute.
    progress : "auto", "on" or "off"
        Progress bar on runs longer than a second; "auto" shows it only where output is a terminal.
    seed : int
        Seed of the planner's own tie-breaking searches.
    plan_cache_size : int
        Plans kept for reuse.
    lineage_depth : int
        How many runs in a row are remembered behind a persisted array on a cluster, to make lost blocks again; a longer
        chain is forgotten (write `x.checkpoint(path)` now and then). 0: lost blocks are lost.
    lineage_bytes : int, bytes
        Arrays of the program's that persisted ones were made from are held on to up to this size, for the same purpose.
    worker_timeout_s : float, s
        A worker of a cluster that does not answer for so long is given up and replaced; 0: never.
    """

    block_bytes: int = 16 * 2**20
    merge_bytes: int = 4 * 2**20
    threads: int = 0
    memory_bytes: int = 0
    spill_dir: str = ""
    reduction_order: str = "fixed"
    layout: str = "packed"
    policy: str = "portfolio"
    implicit_compute: bool = True
    progress: str = "auto"
    seed: int = 0
    plan_cache_size: int = 256
    lineage_depth: int = 1000
    lineage_bytes: int = 2**30
    worker_timeout_s: float = 60.0


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise ConfigError(f"{value!r} is not one of {', '.join(map(repr, allowed))}")
        return str(value)
    return parse


def _at_least(low: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = parse_bytes(value)
        if number < low:
            raise ConfigError(f"{value!r} is below {low}, the least value allowed")
        return number
    return parse


def _seconds(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{value!r} is not a number of seconds; write one, as in 30") from None
    if not number >= 0:
        raise ConfigError(f"{value!r} is below 0, the least value allowed")
    return number


def _flag(value: Any) -> bool:
    if isinstance(value, str):
        if value.lower() in ("1", "true", "yes", "on"):
            return True
        if value.lower() in ("0", "false", "no", "off"):
            return False
        raise ConfigError(f"{value!r} is neither true nor false; write 1 or 0")
    return bool(value)


_PARSE: dict[str, Callable[[Any], Any]] = {
    "block_bytes": _at_least(1), "merge_bytes": _at_least(0), "threads": _at_least(0), "memory_bytes": _at_least(0),
    "spill_dir": str, "reduction_order": _one_of("fixed", "local"), "layout": _one_of("packed", "cyclic"), "policy": str,
    "implicit_compute": _flag, "progress": _one_of("auto", "on", "off"), "seed": _at_least(0),
    "plan_cache_size": _at_least(0), "lineage_depth": _at_least(0), "lineage_bytes": _at_least(0),
    "worker_timeout_s": _seconds,
}


def _checked(changes: dict[str, Any]) -> dict[str, Any]:
    out = {}
    for key, value in changes.items():
        if key not in _PARSE:
            import difflib

            near = difflib.get_close_matches(key, _PARSE, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(_PARSE)}"
            raise ConfigError(f"there is no setting {key!r}; {hint}")
        try:
            out[key] = _PARSE[key](value)
        except ConfigError as error:
            raise ConfigError(f"setting {key!r}: {error}") from None
    return out


def _from_environment() -> Config:
    found = {f.name: os.environ[name] for f in dataclasses.fields(Config)
             if (name := f"NUMS_{f.name.upper()}") in os.environ}
    return Config(**_checked(found))


_lock = threading.Lock()
_current = _from_environment()


def get() -> Config:
    """The settings in force."""
    return _current


# dask's settings that have a counterpart here, and those without dots that have none and are ignored.
DASK_NAMES = {"array.chunk-size": "block_bytes", "num_workers": "threads", "temporary-directory": "spill_dir"}
IGNORED = frozenset({"scheduler", "split_every", "pool", "array_plugins"})


class set:  # noqa: A001, N801  -- reads as `config.set(...)`, as a call or as a context manager
    """Change settings, for good or for a `with` block.

    Parameters
    ----------
    changes : dict, optional
        The same as keywords. Names with dots are dask's: those with a counterpart here are translated, others ignored.
    **keywords
        dask's own (`scheduler`, `split_every`) are ignored too.

    Raises
    ------
    ConfigError
        Unknown names (with the nearest valid one) and values out of range; nothing is changed then.
    """

    def __init__(self, changes: Mapping[str, Any] | None = None, /, **keywords: Any) -> None:
        global _current
        given = {DASK_NAMES.get(k, k): v for k, v in (changes or {}).items()} | keywords
        checked = _checked({k: v for k, v in given.items() if "." not in k and k not in IGNORED})
        with _lock:
            self._before = {key: getattr(_current, key) for key in checked}
            _current = dataclasses.replace(_current, **checked)

    def __enter__(self) -> Config:
        return _current

    def __exit__(self, *exc: object) -> None:
        global _current
        with _lock:
            _current = dataclasses.replace(_current, **self._before)
