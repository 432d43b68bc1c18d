"""saved: what waits for the backward pass, and that checkpoint makes it less."""

from __future__ import annotations

import numpy as np

import nums_core.array as na
from nums_core.nn.autodiff import checkpoint, saved


def block(w, x):
    return na.tanh(na.exp(x @ w))


def loss(wrap):
    def f(w, x):
        for _ in range(3):
            x = wrap(block)(w, x)
        return x.sum()
    return f


W, X = na.asarray(np.eye(8)), na.asarray(np.ones((16, 8)))


def test_values_with_their_bytes_lines_and_readers():
    kept = saved(loss(lambda f: f))(W, X)
    assert [s.op for s in kept].count("tanh") == [s.op for s in kept].count("exp") == 3
    assert kept.nbytes == 6 * 16 * 8 * 8
    assert {s.shape for s in kept} == {(16, 8)}
    assert all(__file__ in s.line for s in kept)
    assert {s.readers for s in kept} == {("multiply",), ("contract", "multiply")}
    assert repr(kept).startswith("6 values, 6.0 KiB, kept")


def test_checkpoint_keeps_what_goes_in():
    kept = saved(loss(checkpoint))(W, X)  # X itself is there anyway
    assert [(s.nbytes, s.readers) for s in kept] == [(16 * 8 * 8, ("barrier.after",))] * 2
