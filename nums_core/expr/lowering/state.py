"""Lowering of updates: one task that changes its states and makes other blocks beside them."""

from __future__ import annotations

import math

import numpy as np

from nums_core.expr.lower import Lowering, Rule
from nums_core.expr.node import Expr
from nums_core.expr.opaque import value_of
from nums_core.ops.taskgraph import Kernel


def _lower_update(low: Lowering, node: Expr) -> np.ndarray:
    function, kwargs, n_states, made, label, flop = node.params
    inputs = np.array([[int(low.of(a).reshape(-1)[0]) for a in node.args]], np.int64)
    elements = sum(math.prod(a.shape) for a in node.args)
    # States are changed where they lie, so they are no memory of the run's own. (Those not donated are copied.)
    out_bytes = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in made)
    kernel = Kernel("state.update", (value_of(function), tuple((k, value_of(v)) for k, v in kwargs), n_states))
    return low.add(node, kernel, (), inputs, elements=np.array([float(elements)]), out_bytes=np.array([float(out_bytes)]),
                   flop=np.array([float(flop)]), label=label)


LOWER: dict[str, Rule] = {"update": _lower_update}
