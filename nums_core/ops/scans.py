"""Scans: running results along an axis. A scan by a ufunc needs the reduction by it, for what comes before each block."""

from __future__ import annotations

# Ufunc -> row of `ops.reductions`. All are associative, which is what lets blocks be scanned at the same time.
SCANS = {
    "add": "sum",
    "multiply": "prod",
    "maximum": "max",
    "minimum": "min",
    "fmax": "fmax",
    "fmin": "fmin",
    "logical_or": "any",
    "logical_and": "all",
    "bitwise_or": "bitwise_or",
    "bitwise_and": "bitwise_and",
    "bitwise_xor": "bitwise_xor",
}
