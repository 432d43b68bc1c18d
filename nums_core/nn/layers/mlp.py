"""The feed-forward part of a transformer's block."""

from __future__ import annotations

from typing import Any, Self

from nums_core.array.array import Array
from nums_core.nn.functional import activation, swiglu
from nums_core.nn.init import Keys
from nums_core.nn.layers.linear import Linear
from nums_core.nn.module import Module, static


class MLP(Module):
    """down(f(up(x))), f an activation by name: "relu", "gelu", "gelu_tanh", "silu", ..."""

    up: Linear
    down: Linear
    act: str = static(default="gelu")

    def __post_init__(self) -> None:
        activation(self.act)

    @classmethod
    def init(cls, rng: Keys, d: int, hidden: int, act: str = "gelu", bias: bool = True, dtype: Any = "float32") -> Self:
        return cls(Linear.init(rng.split("up"), d, hidden, bias, dtype), Linear.init(rng.split("down"), hidden, d, bias, dtype),
                   act)

    def __call__(self, x: Array) -> Array:
        """(..., d) -> (..., d)"""
        return self.down(activation(self.act)(self.up(x)))


class GatedMLP(Module):
    """down(f(gate(x)) · up(x)); with "silu" this is SwiGLU, in one pass.

    References
    ----------
    .. [1] N. Shazeer, "GLU variants improve transformer", 2020, eq. (6).
    """

    gate: Linear
    up: Linear
    down: Linear
    act: str = static(default="silu")

    def __post_init__(self) -> None:
        activation(self.act)

    @classmethod
    def init(cls, rng: Keys, d: int, hidden: int, act: str = "silu", bias: bool = False, dtype: Any = "float32") -> Self:
        gate, up = (Linear.init(rng.split(name), d, hidden, bias, dtype) for name in ("gate", "up"))
        return cls(gate, up, Linear.init(rng.split("down"), hidden, d, bias, dtype), act)

    def __call__(self, x: Array) -> Array:
        """(..., d) -> (..., d)"""
        gate, up = self.gate(x), self.up(x)
        return self.down(swiglu(gate, up) if self.act in ("silu", "swish") else activation(self.act)(gate) * up)


__all__ = ["GatedMLP", "MLP"]
