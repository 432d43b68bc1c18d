"""Random programs over random grids equal NumPy, bit for bit; so does every intermediate result."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nums_core.array as nc
from nums_core.expr import optimise
from nums_core.testing.oracle import check
from nums_core.testing.strategies import chunks_for, programs, shapes, values

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(programs())
def test_programs_equal_numpy(program):
    lazy, eager, names = program
    computed = nc.compute(*lazy)
    for made, want, name in zip(computed, eager, ["input"] * (len(eager) - len(names)) + names, strict=True):
        made = np.asarray(made)
        assert (made.dtype, made.shape) == (want.dtype, want.shape), (name, names)
        np.testing.assert_array_equal(made, want, err_msg=f"{name} of {names}")


@QUICK
@given(programs(max_steps=5))
def test_rules_keep_shape_dtype_and_grid(program):
    lazy, eager, _ = program
    optimise.validate, before = True, optimise.validate
    try:
        check(lazy[-1], eager[-1])
    finally:
        optimise.validate = before


@QUICK
@given(st.data())
def test_rechunking_there_and_back(data):
    shape = data.draw(shapes())
    x = values(shape, "f8", 0)
    first, second = data.draw(chunks_for(shape)), data.draw(chunks_for(shape))
    made = nc.from_array(x, chunks=first).rechunk(second)
    assert made.chunks == second
    check(made, x)
    computed = (nc.from_array(x, chunks=first) + 0).persist().rechunk(second).rechunk(first)
    assert computed.chunks == first
    check(computed, x + 0)


@QUICK
@given(st.data())
def test_slices_of_computed_arrays(data):
    shape = data.draw(shapes(min_dims=1, max_dims=3))
    x = values(shape, "i8", 1)
    made = (nc.from_array(x, chunks=data.draw(chunks_for(shape))) * 2).persist()
    index = tuple(data.draw(st.slices(n)) for n in shape)
    check(made[index], (x * 2)[index])


@QUICK
@given(st.data())
def test_sums_of_integers_do_not_depend_on_the_grid(data):
    shape = data.draw(shapes(min_dims=1))
    x = values(shape, "i4", 2)
    axis = data.draw(st.sampled_from([None, *range(len(shape))]))
    keepdims = data.draw(st.booleans())
    made = nc.from_array(x, chunks=data.draw(chunks_for(shape))).sum(axis=axis, keepdims=keepdims)
    check(made, x.sum(axis=axis, keepdims=keepdims))
