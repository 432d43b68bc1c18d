"""Shapes of steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nums_core as nc
import nums_core.array as na
from nums_core.llm.engine.runner import bucket, computed, values


@given(st.integers(1, 5000))
def test_buckets_are_few_and_not_much_too_large(n):
    assert bucket(n) >= n and bucket(bucket(n)) == bucket(n)
    assert bucket(n) <= max(2 * n - 1, 1) and (n <= 16 or bucket(n) < 1.5 * n + 1)


def test_buckets_of_ordinary_batches():
    assert sorted({bucket(n) for n in range(1, 513)}) == [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, *range(128, 513, 16)]


@pytest.mark.parametrize("chunks", [-1, 2])
def test_values_of_a_kept_array(chunks):
    x = na.arange(6, chunks=chunks).persist()
    np.testing.assert_array_equal(values(x), np.arange(6))


def test_parameters_that_are_still_to_be_computed_are_computed_once():
    data, lazy = na.asarray(np.ones(3)), na.ones(3) * 2
    model = computed({"w": data, "b": (lazy, None)})
    assert model["w"] is data and model["b"][0].expr.op == "leaf"
    np.testing.assert_array_equal(nc.compute(model["b"][0])[0], [2, 2, 2])
    same = {"w": data}
    assert computed(same) is same
