"""Modules: immutable, named, replaced, printed, and through jit and grad as one value."""

import dataclasses

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core.array.array import Array
from nums_core.errors import ConfigError, ShapeError
from nums_core.nn import tree
from nums_core.nn.autodiff import grad
from nums_core.nn.module import Module, static


class Scale(Module):
    weight: Array
    offset: Array | None = None
    power: int = static(default=1)

    def __call__(self, x):
        return x * self.weight ** self.power


class Stack(Module):
    layers: tuple[Scale, ...]
    table: dict
    name: str = static(default="stack")


def stack(n=2):
    return Stack(tuple(Scale(na.full((2,), float(i + 1))) for i in range(n)), {"head": Scale(na.ones((3,)), na.zeros((3,)), 2)})


def test_fields_are_parameters_by_path():
    m = stack()
    assert list(m.parameters()) == ["layers.0.weight", "layers.1.weight", "table.head.weight", "table.head.offset"]
    leaves, rest = tree.flatten(m)
    assert [a is b for a, b in zip(leaves, m.parameters().values(), strict=True)] == [True] * 4
    again = tree.unflatten(rest, leaves)
    assert type(again) is Stack and again.name == "stack" and again.table["head"].power == 2


def test_nothing_changes_in_place():
    m = stack()
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.name = "other"
    other = m.replace(name="other")
    assert (m.name, other.name) == ("stack", "other") and other.layers is m.layers
    new = m.with_parameters({"layers.1.weight": na.zeros((2,))})
    assert new.layers[1].weight.compute().tolist() == [0, 0] and m.layers[1].weight.compute().tolist() == [2, 2]
    assert new.layers[0].weight is m.layers[0].weight


@pytest.mark.parametrize("call, error, remedy", [
    (lambda m: m.replace(nam="x"), ConfigError, "nearest is 'name'"),
    (lambda m: m.with_parameters({"layer.0.weight": na.ones(2)}), ConfigError, "nearest is 'layers.0.weight'"),
    (lambda m: m.with_parameters({"layers.0.weight": na.ones(3)}), ShapeError, r"shape \(2,\) and was given \(3,\)"),
])
def test_refusals_name_the_nearest(call, error, remedy):
    with pytest.raises(error, match=remedy):
        call(stack())


def test_a_module_is_an_argument_of_jit_and_grad():
    traced = []

    @nc.jit
    def step(m, x):
        traced.append(1)
        g = grad(lambda m: m(x).sum())(m)
        return tree.map(lambda p, d: p - 0.5 * d, m, g)

    m, x = Scale(na.ones((2,)), None, 2), na.asarray(np.array([1.0, 3.0]))
    for _ in range(2):
        m = step(m, x)
    assert isinstance(m, Scale) and m.power == 2 and len(traced) == 1
    np.testing.assert_allclose(m.weight.compute(), [0, 4])  # w -= x w, twice
    step(m.replace(power=1), x)
    assert len(traced) == 2


def test_repr_is_a_summary():
    text = repr(stack(3))
    assert text.splitlines()[0] == "Stack  # 12 parameters"
    assert "    0 to 2: Scale\n" in text and "float64 (2,)" in text and "name: 'stack'" in text
    same = Stack((Scale(na.ones(2)),) * 8, {})
    assert "    0 to 7: Scale\n" in repr(same) and repr(same).count("Scale") == 1


def test_inheritance_adds_fields():
    class Shifted(Scale):
        shift: Array | None = None

        def __call__(self, x):
            return super().__call__(x) + self.shift

    m = Shifted(na.full((2,), 3.0), shift=na.ones((2,)))
    assert m(na.ones((2,))).compute().tolist() == [4, 4]
    assert list(m.parameters()) == ["weight", "shift"]
    assert m != Shifted(m.weight, shift=m.shift) and len({m, m}) == 1
