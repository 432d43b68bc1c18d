"""Derivatives of products with quantised weights: with respect to what they multiply. The packed weights are integers."""

from __future__ import annotations

from collections.abc import Sequence

from nums_core.array.array import Array
from nums_core.expr.node import Expr
from nums_core.nn.autodiff.rule import ZERO, Cotangent, Table
from nums_core.nn.quantized import QuantizedArray, transposed_product


def _matmul(node: Expr, g: Array) -> Sequence[Cotangent]:
    """y = x wᵀ: dx = dy w"""
    data, x = node.args
    return [None, Array(transposed_product(data, g.expr, node.params[0], x.shape[-1]))]


def _transposed(node: Expr, g: Array) -> Sequence[Cotangent]:
    """y = x w: dx = dy wᵀ"""
    data, _ = node.args
    form, n_cols = node.params
    return [None, QuantizedArray(Array(data), form, (data.shape[0], n_cols)).matmul(g)]


QUANTIZED: Table = {
    "quantize.matmul": _matmul,
    "quantize.transposed": _transposed,
    "quantize.take": ZERO("rows of packed weights, by number: integers alone"),
    "quantize.decode": ZERO("packed weights are integers"),
}
