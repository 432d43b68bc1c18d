"""Lowering of choices among blocks: no task at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nums_core.expr.lower import Lowering
from nums_core.expr.node import Expr


def _take(low: Lowering, node: Expr) -> np.ndarray:
    (numbers,) = node.params
    ids = low.of(node.args[0])
    return ids[np.ix_(*numbers)] if ids.ndim else ids


LOWER: dict[str, Callable[[Lowering, Expr], np.ndarray]] = {"take": _take}
