"""What holds for every fused operation: it has a derivative, its derivative too; it can be sent to another process."""

import importlib
import pickle
import pkgutil

import numpy as np
import pytest

import nums_core.array as na
from nums_core.nn import functional as F
from nums_core.nn import ops
from nums_core.nn.primitives import Primitive
from nums_core.testing.gradients import check_grad

PRIMITIVES = {f"{m.name}.{name}": p for m in pkgutil.iter_modules(ops.__path__)
              for name, p in vars(importlib.import_module(f"nums_core.nn.ops.{m.name}")).items() if isinstance(p, Primitive)}


@pytest.mark.parametrize("name", PRIMITIVES)
def test_has_a_derivative(name):
    assert PRIMITIVES[name].backward is not None


@pytest.mark.parametrize("name", PRIMITIVES)
def test_is_a_global_of_its_module_to_pickle(name):
    p = PRIMITIVES[name]
    assert pickle.loads(pickle.dumps(p)) is p
    assert len(pickle.dumps(p)) < 200


def test_names_are_found():
    assert {"attention.attend", "norms.rms_backward", "conv.fold"} < set(PRIMITIVES) and len(PRIMITIVES) > 15


def test_vectors_and_empty_batches():
    check_grad(F.rms_norm, np.arange(4.0), np.ones(4))
    check_grad(F.layer_norm, np.arange(4.0), np.ones(4), np.ones(4))
    check_grad(lambda x: F.cross_entropy(x, na.asarray(np.array(2))), np.arange(4.0))
    check_grad(F.swiglu, np.arange(4.0), np.ones(4))
    empty = na.zeros((0, 4), "f4")
    for made in (F.rms_norm(empty), F.layer_norm(empty), F.swiglu(empty, empty), F.softmax(empty), F.gelu(empty),
                 F.linear(empty, na.ones((4, 4), "f4")), F.embedding(na.ones((3, 4), "f4"), na.zeros((0,), int))):
        assert made.compute().shape == (0, 4)
    assert F.cross_entropy(empty, na.zeros((0,), int)).compute() == 0
