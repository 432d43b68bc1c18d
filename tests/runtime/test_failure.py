"""A kernel's exception becomes one that names the operation, and stays what it was."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from nums_core._util import SourceLine
from nums_core.errors import KernelError, NumsError, ShapeError
from nums_core.runtime.cluster import Cluster
from nums_core.runtime.failure import RemoteFailure, describe, error_from_text, kernel_error
from nums_core.testing.sketch import Sketch


class Awkward(Exception):
    """Its constructor wants more than a message."""

    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


class Locked(ValueError):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


@pytest.fixture
def plan():
    s = Sketch()
    s.line = SourceLine("model.py", 12)
    return s.plan(Cluster.single(1, 2**30), [s.apply("add", s.view(0, ((2, 2, 2),)), 1.0)])[0]


def raised(error):
    """`error` with a traceback."""
    try:
        raise error
    except Exception as e:
        return e


@pytest.mark.parametrize("error", [
    ValueError("bad"), ZeroDivisionError("bad"), np.linalg.LinAlgError("bad"), MemoryError("bad"), KeyError("bad"),
    OSError(5, "bad"), FloatingPointError("bad")], ids=lambda e: type(e).__name__)
def test_it_is_still_an_error_of_its_class(plan, error):
    made = kernel_error(plan, 4, error, [np.zeros((2, 3), "f4")])
    assert isinstance(made, KernelError) and isinstance(made, type(error))
    for part in ("bad", "'add'", "block 1 of 3", "model.py:12", "float32[2, 3]", "compute again"):
        assert part in str(made)


def test_an_awkward_constructor(plan):
    made = kernel_error(plan, 3, Awkward(1, 2), [])
    assert isinstance(made, KernelError) and isinstance(made, Awkward) and "Awkward: 1 2" in str(made) and "operands: none" in str(made)


def test_our_own_errors_pass(plan):
    error = ShapeError("said already")
    assert kernel_error(plan, 3, error, []) is error


def test_operands_are_described():
    assert describe((np.zeros(3), 2.5)) == "(float64[3], float[])"


def test_unlike_layouts():
    assert error_from_text(UnicodeDecodeError, "x").args == ("x",)


@pytest.mark.parametrize("error", [ValueError("bad"), Locked("bad"), Awkward(1, 2), np.linalg.LinAlgError("bad")],
                         ids=lambda e: type(e).__name__)
def test_it_travels(plan, error):
    """Whatever an exception holds, its text, its place and (a base of) its class arrive."""
    sent = pickle.loads(pickle.dumps(RemoteFailure(1, raised(error), [np.zeros(2)])))
    made = sent.raised(plan, 4)
    assert isinstance(made, KernelError) and str(error) in str(made) and "model.py:12" in str(made)
    if type(error) not in (Awkward,):
        assert isinstance(made, ValueError)
    assert any("in raised" in note for note in made.__cause__.__notes__)


def test_what_is_not_a_kernels_fault(plan):
    made = pickle.loads(pickle.dumps(RemoteFailure(-1, raised(OSError(28, "full")), []))).raised(plan, -1)
    assert type(made) is OSError and made.errno == 28
    made = pickle.loads(pickle.dumps(RemoteFailure(-1, raised(Locked("bad")), []))).raised(plan, -1)
    assert type(made) is RuntimeError and "Locked: bad" in str(made)


def test_our_own_errors_travel(plan):
    made = pickle.loads(pickle.dumps(RemoteFailure(0, raised(ShapeError("said")), []))).raised(plan, 3)
    assert type(made) is ShapeError and isinstance(made, NumsError) and str(made) == "said"
