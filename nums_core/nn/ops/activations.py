"""Activations: compositions of elementwise operations with derivatives of every order, and the fused gate of a SwiGLU."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nums_core.array import elementwise as ew
from nums_core.array.array import Array
from nums_core.errors import ConfigError, ShapeError
from nums_core.nn.ops import composed
from nums_core.nn.primitives import Call, primitive
from nums_core.runtime.devices import scratch

TILE_ELEMENTS = 2**17  # of one buffer: a tile's few buffers fit the cache, and a call takes 0.1 ms


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), as (1 + tanh(x / 2)) / 2, which neither it nor its derivatives overflow."""
    return ew.tanh(x * 0.5) * 0.5 + 0.5


def relu(x: Array) -> Array:
    """max(x, 0)"""
    return ew.maximum(x, 0)


def silu(x: Array) -> Array:
    """x · sigmoid(x)"""
    return x * sigmoid(x)


def gelu(x: Array, approximate: bool = False) -> Array:
    """x · Φ(x), Φ the normal distribution function.

    Parameters
    ----------
    approximate : bool
        x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))) instead, off by no more than 5e-4: what GPT-2 and its kin were trained with.

    References
    ----------
    .. [1] D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016.
    """
    if approximate:
        return x * (ew.tanh((x * x * 0.044715 + 1) * x * math.sqrt(2 / math.pi)) * 0.5 + 0.5)
    return exact_gelu.bind([x], _letters(x) + "->" + _letters(x), [(x.shape, x.dtype)])


def swiglu(gate: Array, up: Array) -> Array:
    """silu(gate) · up in one pass, and one backward, that keep nothing but the two operands. Shapes must be equal.

    References
    ----------
    .. [1] N. Shazeer, "GLU variants improve transformer", 2020, eq. (5) without the last product.
    """
    if gate.shape != up.shape:
        raise ShapeError(f"swiglu of shapes {gate.shape} and {up.shape}; give both projections the same features")
    x = _letters(gate)
    return gated.bind([gate, up], f"{x},{x}->{x}", [(gate.shape, np.result_type(gate.dtype, up.dtype))])


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_new": lambda x: gelu(x, approximate=True),
    "gelu_tanh": lambda x: gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: gelu(x, approximate=True),
    "gelu_fast": lambda x: gelu(x, approximate=True),
    "tanh": ew.tanh,
    "sigmoid": sigmoid,
}


def activation(name: str) -> Callable[[Array], Array]:
    """The activation of that name, as Hugging Face's configurations name them.

    Raises
    ------
    ConfigError
        An unknown name.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _letters(x: Array) -> str:
    return "abcdefghijklmnop"[:x.ndim]


# -- on blocks --------------------------------------------------------------------------------------------------------

def _one_and_exp(x: np.ndarray, out: np.ndarray) -> None:
    """1 + exp(-x), which is 1 / sigmoid(x): half the price of a tanh. Infinite below -88, where the sigmoid is 0."""
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1


@primitive(label="swiglu", flop=14)
def gated(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """sigmoid(gate) · gate · up, tile by tile, so that memory is read and written once."""
    out = np.empty(gate.shape, np.result_type(gate.dtype, up.dtype))
    x, u, y = (np.ascontiguousarray(a).reshape(-1) for a in (gate, up, out))
    for i in range(0, x.size, TILE_ELEMENTS):
        at = slice(i, i + TILE_ELEMENTS)
        _one_and_exp(x[at], y[at])
        np.divide(x[at], y[at], out=y[at])
        y[at] *= u[at]
    return out


@primitive(label="swiglu.backward", n_out=2, flop=20)
def gated_backward(gate: np.ndarray, up: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With s = sigmoid(x): d_up = g x s, d_gate = g up s (1 + x (1 - s)) = g up s + d_up up (1 - s)."""
    d_gate, d_up = np.empty(gate.shape, gate.dtype), np.empty(up.shape, up.dtype)
    x, u, c, dx, du = (np.ascontiguousarray(a).reshape(-1) for a in (gate, up, g, d_gate, d_up))
    for i in range(0, x.size, TILE_ELEMENTS):
        at = slice(i, i + TILE_ELEMENTS)
        s = scratch.empty("swiglu s", (len(x[at]),), x.dtype)
        t = scratch.empty("swiglu t", s.shape, x.dtype)
        _one_and_exp(x[at], s)
        np.divide(1, s, out=s)
        np.multiply(c[at], s, out=t)
        np.multiply(t, x[at], out=du[at])
        np.subtract(1, s, out=s)
        s *= du[at]
        t += s
        np.multiply(t, u[at], out=dx[at])
    return d_gate, d_up


@gated.defbackward
def _gated_backward(call: Call, g: Array | None) -> list[Array | None]:
    if g is None:
        return [None, None]
    gate, up = call.args
    x = _letters(gate)
    return list(gated_backward.bind([gate, up, g], f"{x},{x},{x}->{x},{x}",
                                    [(gate.shape, gate.dtype), (up.shape, up.dtype)]))


@gated_backward.defbackward
def _gated_second(call: Call, *cotangents: Array | None) -> list[Array | None]:
    if not any(c is not None for c in cotangents):
        return [None] * 3
    *primals, g = call.args
    of_primals, of_g = composed.second_order(composed.swiglu, primals, g, cotangents)
    return [*of_primals, of_g]


@primitive(label="gelu", flop=30)
def exact_gelu(x: np.ndarray) -> np.ndarray:
    """x · Φ(x)"""
    from scipy.special import ndtr

    return x * ndtr(x)


@exact_gelu.defbackward
def _exact_gelu_backward(call: Call, g: Array | None) -> list[Array | None]:
    """Φ(x) + x φ(x), of operations that have derivatives themselves."""
    if g is None:
        return [None]
    (x,) = call.args
    labels = f"{_letters(x)}->{_letters(x)}"
    cdf = normal_cdf.bind([x], labels, [(x.shape, x.dtype)])
    return [g * (cdf + x * _density(x))]


def _density(x: Array) -> Array:
    return ew.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))


@primitive(label="normal.cdf", flop=30)
def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Φ(x)"""
    from scipy.special import ndtr

    return ndtr(x)


@normal_cdf.defbackward
def _normal_cdf_backward(call: Call, g: Array | None) -> list[Array | None]:
    return [None if g is None else g * _density(call.args[0])]


__all__ = ["ACTIVATIONS", "activation", "gelu", "relu", "sigmoid", "silu", "swiglu"]
