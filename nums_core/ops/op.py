"""Op: one row says what an operation is. The tables beside this file hold the rows; every other floor keys by their names.

A row has no code of how the operation runs. Kernels (`runtime/devices`), lowering and rewrite rules (`expr`) and public
functions (`array`) hang off its name; `tests/ops/test_completeness.py` walks the rows and finds what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

DtypeRule = Callable[..., np.dtype]


@dataclass(frozen=True, slots=True)
class Op:
    """What an operation is.

    Attributes
    ----------
    name : str
    block_rule : "blockwise", "reduce", "contract", "gather", "create", "scan" or "custom"
        How its blocks map to its operands' blocks.
    nin : int
        Number of operands; -1 for any.
    dtype : callable
        Result dtype from operand dtypes (Python scalar types stay as `int`, `float`, `complex`: NEP 50).
    flop : float
        Per element of the loop nest.
    """

    name: str
    block_rule: str
    nin: int
    dtype: DtypeRule
    flop: float = 1.0


class Table(dict[str, Op]):
    """Rows by name."""

    def row(self, name: str, block_rule: str, nin: int, dtype: DtypeRule, flop: float = 1.0) -> None:
        if name in self:
            raise ValueError(f"the row {name!r} exists already")
        self[name] = Op(name, block_rule, nin, dtype, flop)


def same(*dtypes: Any, **kw: Any) -> np.dtype:
    """The first operand's dtype."""
    return np.dtype(dtypes[0])


def promote(*dtypes: Any, **kw: Any) -> np.dtype:
    """NumPy's promotion; Python scalar types are weak."""
    weak = {int: 0, float: 0.0, complex: 0j}
    return np.result_type(*(weak.get(d, d) for d in dtypes))


def boolean(*dtypes: Any, **kw: Any) -> np.dtype:
    return np.dtype(bool)


def index(*dtypes: Any, **kw: Any) -> np.dtype:
    return np.dtype(np.intp)


def real_of(*dtypes: Any, **kw: Any) -> np.dtype:
    """The real dtype of a complex one; others unchanged."""
    return np.zeros(0, dtypes[0]).real.dtype
