"""Convolution over one axis, two, or more: the window says how many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from nums_core.array.array import Array
from nums_core.errors import ConfigError
from nums_core.nn import init
from nums_core.nn.functional import conv
from nums_core.nn.init import Keys
from nums_core.nn.module import Module, static


class Conv(Module):
    """Every window of the input times every filter; see `functional.conv`.

    Parameters
    ----------
    weight : Array, shape (out_channels, in_channels / groups, *window)
    bias : Array, shape (out_channels,), optional
    stride, padding, dilation : int, or a tuple of one an axis
    groups : int
    """

    weight: Array
    bias: Array | None = None
    stride: int | tuple[int, ...] = static(default=1)
    padding: int | tuple[int, ...] = static(default=0)
    dilation: int | tuple[int, ...] = static(default=1)
    groups: int = static(default=1)

    @classmethod
    def init(cls, rng: Keys, in_channels: int, out_channels: int, window: Sequence[int], bias: bool = True,
             dtype: Any = "float32", groups: int = 1, **settings: Any) -> Self:
        """`window` has one extent an axis: (3,) for a sequence, (3, 3) for an image."""
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ConfigError(f"{in_channels} and {out_channels} channels in {groups} groups; groups must divide both")
        weight = init.kaiming(rng.split("weight"), (out_channels, in_channels // groups, *window), gain=1.0, dtype=dtype)
        return cls(weight, init.zeros((out_channels,), dtype) if bias else None, groups=groups, **settings)

    def __call__(self, x: Array) -> Array:
        """(batch, in_channels, *extent) -> (batch, out_channels, *positions)"""
        return conv(x, self.weight, self.bias, stride=self.stride, padding=self.padding, dilation=self.dilation,
                    groups=self.groups)


__all__ = ["Conv"]
