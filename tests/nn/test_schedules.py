"""Schedules: their corners by hand, the same for ints and arrays, and no plan made twice."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nums_core as nc
import nums_core.array as na
from nums_core import session
from nums_core.errors import ConfigError
from nums_core.nn.optim import Constant, Cosine, InverseSqrt, Linear, Piecewise

ALL = [Constant(0.5), Cosine(peak=1.0, total_steps=20, warmup_steps=4, final=0.1), Linear(peak=1.0, total_steps=20, warmup_steps=4),
       Linear(peak=2.0, total_steps=10), InverseSqrt(peak=1.0, warmup_steps=4), InverseSqrt(peak=1.0, warmup_steps=4, ramp=False),
       Piecewise((3, 10), (1.0, 0.1, 0.01))]


@pytest.mark.parametrize(("schedule", "corners"), [
    (ALL[0], {0: 0.5, 1000: 0.5}),
    (ALL[1], {0: 0.25, 3: 1.0, 4: 1.0, 12: 0.55, 20: 0.1, 99: 0.1, 8: 0.1 + 0.45 * (1 + math.cos(math.pi / 4))}),
    (ALL[2], {0: 0.25, 3: 1.0, 4: 1.0, 12: 0.5, 20: 0.0, 99: 0.0}),
    (ALL[3], {0: 2.0, 5: 1.0, 10: 0.0}),
    (ALL[4], {0: 0.25, 3: 1.0, 15: 0.5, 399: 0.1}),
    (ALL[5], {0: 1.0, 3: 1.0, 15: 0.5, 399: 0.1}),
    (ALL[6], {0: 1.0, 2: 1.0, 3: 0.1, 9: 0.1, 10: 0.01, 500: 0.01}),
], ids=repr)
def test_corners(schedule, corners):
    for step, rate in corners.items():
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("schedule", ALL, ids=repr)
def test_arrays_and_ints_give_the_same(schedule):
    compiled = nc.jit(schedule)
    found = [float(compiled(na.asarray(np.int64(k)))) for k in range(25)]
    np.testing.assert_allclose(found, [float(schedule(k)) for k in range(25)], rtol=1e-14)
    assert compiled(na.asarray(np.int64(0))).dtype == np.float64


def test_one_plan_serves_all_steps():
    compiled = nc.jit(ALL[1])
    compiled(na.asarray(np.int64(0)))
    made = session.current().plans_made
    for k in range(1, 5):
        compiled(na.asarray(np.int64(k)))
    assert session.current().plans_made == made


@given(st.floats(1e-6, 1e3), st.integers(0, 50), st.integers(1, 100), st.floats(0, 1), st.integers(0, 300))
def test_rates_stay_between_final_and_peak(peak, warmup, falling, part, step):
    for kind in (Cosine, Linear):
        schedule = kind(peak=peak, total_steps=warmup + falling, warmup_steps=warmup, final=part * peak)
        rate = float(schedule(step))
        if step < warmup:
            assert rate == pytest.approx(peak * (step + 1) / warmup)
        else:
            assert (part - 1e-12) * peak <= rate <= (1 + 1e-12) * peak
        if step >= warmup + falling:
            assert rate == pytest.approx(part * peak, abs=1e-12 * peak)


@pytest.mark.parametrize(("make", "remedy"), [
    (lambda: Cosine(peak=1.0, total_steps=5, warmup_steps=5), "0 <= warmup_steps < total_steps"),
    (lambda: Linear(peak=1.0, total_steps=0), "0 <= warmup_steps < total_steps"),
    (lambda: InverseSqrt(peak=1.0, warmup_steps=0), "at least 1"),
    (lambda: Piecewise((3,), (1.0,)), "one rate more than bounds"),
    (lambda: Piecewise((3, 2), (1.0, 2.0, 3.0)), "rising bounds"),
])
def test_schedules_that_cannot_be(make, remedy):
    with pytest.raises(ConfigError, match=remedy):
        make()
