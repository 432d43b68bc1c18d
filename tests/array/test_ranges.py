"""Evenly spaced values: NumPy's dtypes, lengths and bits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.testing.oracle import check

STOPS = [0, 3, -2, 1.5, 0.1, np.int8(3), np.float32(2.1), np.uint64(5), np.float16(3)]
STEPS = [(0.1, 10, 0.1), (0, 1, 0.1), (5, 0, -1), (5, 0, -0.3), (1, 1, 1), (2, 8, 3), (0.1, 5.3, np.float32(0.3)),
         (0, 100, 0.01), (np.float32(0.1), 100, np.float32(0.1)), (-3.3, 7, 1), (0, -5, 1)]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("dtype", [None, "f4", "i2", "f2", "c16"])
def test_arange_to(stop, dtype):
    check(nc.arange(stop, dtype=dtype, chunks=2), np.arange(stop, dtype=dtype))


@pytest.mark.parametrize("start, stop, step", STEPS)
@pytest.mark.parametrize("dtype", [None, "f4", "f2", "i4", "c8"])
def test_arange_by(start, stop, step, dtype):
    check(nc.arange(start, stop, step, dtype, chunks=7), np.arange(start, stop, step, dtype))


DAY, HOUR = np.datetime64("2020-01-01"), np.timedelta64(1, "h")


@pytest.mark.parametrize("args, dtype", [
    (("2020-01-01", "2020-02-01"), "M8[D]"), ((DAY, np.datetime64("2020-01-03T05"), np.timedelta64(30, "m")), None),
    ((DAY, 10), None), ((3 * HOUR,), None), ((np.timedelta64(3, "D"), np.timedelta64(10, "D"), 5 * HOUR), None),
    ((np.datetime64("2020-01"), np.datetime64("2020-05")), None),
    ((np.datetime64("2020-01-05"), DAY, np.timedelta64(-1, "D")), None), ((0, 10, np.timedelta64(2, "s")), None)])
def test_arange_of_time(args, dtype):
    check(nc.arange(*args, dtype=dtype, chunks=3), np.arange(*args, dtype=dtype))


def test_arange_refusals():
    with pytest.raises(TypeError, match="requires stop"):
        nc.arange()
    with pytest.raises(ZeroDivisionError, match="step"):
        nc.arange(0, 5, 0)


def test_arange_of_a_lazy_bound():
    check(nc.arange(nc.asarray([3, 5]).max()), np.arange(5))


@pytest.mark.parametrize("start, stop", [(0, 1), (0.1, 3), (3, 3), (5, -2), (1j, 3), (np.float32(1), np.float32(2)),
                                         (0, 5e-324), (True, 7), (-0.0, 0)])
@pytest.mark.parametrize("num", [0, 1, 2, 7, 50])
@pytest.mark.parametrize("endpoint", [True, False])
def test_linspace(start, stop, num, endpoint):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, step = nc.linspace(start, stop, num, endpoint, retstep=True, chunks=6)
        want, want_step = np.linspace(start, stop, num, endpoint, retstep=True)
        check(made, want)
        np.testing.assert_equal(np.asarray(step), np.asarray(want_step))
        if not isinstance(start, complex):
            check(nc.linspace(start, stop, num, endpoint, dtype=int), np.linspace(start, stop, num, endpoint, dtype=int))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("endpoint", [True, False])
def test_linspace_of_arrays(axis, endpoint):
    start, stop = np.array([0.0, 1]), np.array([3.0, 7])
    want = np.linspace(start, stop, 5, endpoint, axis=axis)
    check(nc.linspace(start, stop, 5, endpoint, axis=axis), want)
    check(nc.linspace(nc.asarray(start), 2 * start + 3, 5, axis=axis), np.linspace(start, 2 * start + 3, 5, axis=axis))


def test_linspace_refuses_negative_counts():
    with pytest.raises(ValueError, match="must be non-negative"):
        nc.linspace(0, 1, -1)


def test_logspace():
    check(nc.logspace(0, 3, 7, chunks=3), np.logspace(0, 3, 7))
    check(nc.logspace(0, 3, 7, base=2, dtype="f4"), np.logspace(0, 3, 7, base=2, dtype="f4"))
    for axis in (0, -1):
        check(nc.logspace([0, 1], [3, 4], 5, base=[2, 3], axis=axis), np.logspace([0, 1], [3, 4], 5, base=[2, 3], axis=axis))


@pytest.mark.parametrize("start, stop", [(1, 1000), (-1, -1000), (1000, 1), (1j, 1000j), ([1, 2], [16, 32])])
@pytest.mark.parametrize("endpoint", [True, False])
def test_geomspace(start, stop, endpoint):
    check(nc.geomspace(start, stop, 4, endpoint), np.geomspace(start, stop, 4, endpoint))


def test_geomspace_of_integers_and_zero():
    check(nc.geomspace(1, 256, 9, dtype=int), np.geomspace(1, 256, 9, dtype=int))
    with pytest.raises(ValueError, match="cannot include zero"):
        nc.geomspace(0, 1)


@pytest.mark.parametrize("increasing", [False, True])
@pytest.mark.parametrize("n", [None, 0, 1, 4])
@pytest.mark.parametrize("x", [[1, 2, 3], [1.5, -2.0], [1j, 2]])
def test_vander(x, n, increasing):
    check(nc.vander(x, n, increasing), np.vander(x, n, increasing))


@pytest.mark.parametrize("name", ["bartlett", "blackman", "hamming", "hanning"])
@pytest.mark.parametrize("m", [0, 1, 2, 7, 12])
def test_windows(name, m):
    check(getattr(nc, name)(m), getattr(np, name)(m))


@pytest.mark.parametrize("m", [0, 1, 2, 9])
def test_kaiser(m):
    check(nc.kaiser(m, 14.0), np.kaiser(m, 14.0))
