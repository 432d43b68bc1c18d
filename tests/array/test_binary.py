"""Bits, bytes and working days."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core.array as nc
from nums_core.errors import DTypeError
from nums_core.testing.oracle import check

FLAGS = np.random.default_rng(0).random((5, 19)) < 0.5


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("bitorder", ["big", "little"])
def test_packing(axis, bitorder):
    x = nc.asarray(FLAGS, chunks=(2, 5))
    packed = np.packbits(FLAGS, axis=axis, bitorder=bitorder)
    check(nc.packbits(x, axis=axis, bitorder=bitorder), packed)
    for count in (None, 3, -2):
        check(nc.unpackbits(nc.asarray(packed, chunks=2), axis=axis, count=count, bitorder=bitorder),
              np.unpackbits(packed, axis=axis, count=count, bitorder=bitorder))
    with pytest.raises(TypeError):
        nc.packbits(nc.ones(3))


@pytest.mark.parametrize("dtype", ["i4", "f4", "u1", "i8", "c16", "M8[s]"])
def test_view(dtype):
    data = np.arange(24.0).reshape(3, 8)
    check(nc.asarray(data, chunks=(2, 3)).view(dtype), data.view(dtype))
    check(nc.asarray(np.asfortranarray(data), chunks=(2, 3)).view(dtype), data.view(dtype))
    check(nc.asarray(data.T, chunks=(2, 3)).view(dtype, order="F"), data.view(dtype).T)


def test_view_refusals():
    with pytest.raises(ValueError, match="last axis of the array"):
        nc.ones((2, 3), "u1").view("i4")
    with pytest.raises(ValueError, match=r"x\[None\]"):
        nc.asarray(1.0).view("u1")
    with pytest.raises(ValueError, match="neither 'C' nor 'F'"):
        nc.ones(3).view("i8", order="K")


def test_real_if_close():
    x = np.array([1 + 1e-15j, 2])
    check(nc.real_if_close(nc.asarray(x, chunks=1)), np.real_if_close(x))
    check(nc.real_if_close(x * 1j), np.real_if_close(x * 1j))
    check(nc.real_if_close([1.5]), [1.5])


def test_working_days():
    days = np.arange("2020-01-01", "2020-01-12", dtype="M8[D]")
    x = nc.asarray(days, chunks=4)
    check(nc.is_busday(x), np.is_busday(days))
    check(nc.busday_offset(x, 2, roll="forward"), np.busday_offset(days, 2, roll="forward"))
    check(nc.busday_count("2019-12-20", x, holidays=["2019-12-25"]), np.busday_count("2019-12-20", days, holidays=["2019-12-25"]))
    check(nc.busday_count(x, x + 5), np.busday_count(days, days + 5))
    check(nc.datetime_as_string(x), np.datetime_as_string(days))
    check(np.is_busday(x, weekmask="0000011"), np.is_busday(days, weekmask="0000011"))
    with pytest.raises(DTypeError, match=r"astype\('M8\[D\]'\)"):
        nc.is_busday(nc.arange(3))
