"""Functions of neural networks on Arrays: parameters in, results out. Each is lazy, works on blocks, and has a derivative.

Axes before those that a function is about may be cut into blocks, which are computed one by one: a batch in as many blocks
as there are threads is data parallelism.
"""

from __future__ import annotations

from typing import Any

from nums_core.array import products
from nums_core.array.array import Array
from nums_core.errors import ShapeError
from nums_core.expr import build
from nums_core.nn.ops.activations import activation as activation
from nums_core.nn.ops.activations import gelu as gelu
from nums_core.nn.ops.activations import relu as relu
from nums_core.nn.ops.activations import sigmoid as sigmoid
from nums_core.nn.ops.activations import silu as silu
from nums_core.nn.ops.activations import swiglu as swiglu
from nums_core.nn.ops.attention import attention as attention
from nums_core.nn.ops.conv import conv as conv
from nums_core.nn.ops.dropout import dropout as dropout
from nums_core.nn.ops.embedding import embedding as embedding
from nums_core.nn.ops.loss import cross_entropy as cross_entropy
from nums_core.nn.ops.norms import layer_norm as layer_norm
from nums_core.nn.ops.norms import rms_norm as rms_norm
from nums_core.nn.ops.rotary import rotate as rotate
from nums_core.nn.ops.softmax import log_softmax as log_softmax
from nums_core.nn.ops.softmax import softmax as softmax


def linear(x: Array, w: Any, b: Array | None = None) -> Array:
    """x wᵀ + b

    Parameters
    ----------
    x : Array, shape (..., in_features)
    w : Array, shape (out_features, in_features), or an object with a method `matmul(x)`
        The latter is how quantised weights come in.
    b : Array, shape (out_features,), optional

    Returns
    -------
    Array, shape (..., out_features)

    Raises
    ------
    ShapeError
        in_features differ; the message gives both.

    Notes
    -----
    2·rows·in·out flop. Cut along the rows of x, or of w, every block is one product of matrices; cut along in_features, the
    products are added up.
    """
    if isinstance(w, Array):
        if w.ndim != 2 or not x.ndim or x.shape[-1] != w.shape[1]:
            raise ShapeError(f"linear of x {x.shape} with a weight {w.shape}: the weight is (out_features, in_features), and "
                             "in_features the last extent of x; transpose the weight with w.T if it lies the other way")
        lead = products.labels(2, x.ndim - 1)
        # Blocks as the operands have them: logits are larger than a usual block, and are wanted whole.
        made = Array(build.contract(x.expr, w.expr, lead + "a", "ba", lead + "b"))
    else:
        made = w.matmul(x)
    return made if b is None else made + b


__all__ = ["activation", "attention", "conv", "cross_entropy", "dropout", "embedding", "gelu", "layer_norm", "linear",
           "log_softmax", "relu", "rms_norm", "rotate", "sigmoid", "silu", "softmax", "swiglu"]
