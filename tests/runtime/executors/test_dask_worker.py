"""Parcels, and hosts without Dask."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.runtime.executors.dask_worker import ALIGNED, HOSTS, SHORT_BYTES, DaskHost, HostGone, Parcel, ask, stop

SIZES = st.sampled_from([0, 1, 3, 8, 1000, SHORT_BYTES // 8, SHORT_BYTES // 8 + 1])


def shifted(parcel):
    """As it arrives in a message that is cut at an odd place."""
    def moved(buffer):
        memory = np.zeros(buffer.nbytes + 1, np.uint8)
        memory[1:] = np.frombuffer(buffer, np.uint8)
        return memory.data[1:]

    return Parcel(parcel.head, parcel.sizes, moved(parcel.joined), list(map(moved, parcel.alone)))


@given(st.lists(st.tuples(SIZES, st.sampled_from(["?", "f4", "c16"]))))
def test_parcels_bring_what_was_put_in(wanted):
    value = [np.arange(n).astype(dtype) for n, dtype in wanted]
    sent = Parcel.of(value)
    buffers = []
    head = pickle.dumps(sent, protocol=5, buffer_callback=buffers.append)
    for parcel in (sent, pickle.loads(head, buffers=buffers), pickle.loads(pickle.dumps(sent, 4)), shifted(sent)):
        for got, want in zip(parcel.open(), value, strict=True):
            assert got.dtype == want.dtype and (got == want).all()
            assert (not got.flags.writeable and got.ctypes.data % ALIGNED == 0) or not got.size
    assert len(buffers) <= 1 + sum(v.nbytes >= SHORT_BYTES for v in value)
    assert sent.nbytes >= sum(v.nbytes for v in value)


def test_what_does_not_pickle_fails_where_the_parcel_is_made():
    with pytest.raises(TypeError, match="pickle"):
        Parcel.of(i for i in range(3))


def test_hosts_are_found_by_name_while_somebody_holds_them():
    host = DaskHost("mine", 0, 1, 2**20, {})
    assert ask("mine", "ping", Parcel.of(()), None).open() == 0
    host.in_progress = 5
    stop("mine", 5)
    assert host.cancelled()
    stop("not there", 5)
    del host
    assert "mine" not in HOSTS
    with pytest.raises(HostGone, match="started again"):
        ask("mine", "ping", Parcel.of(()), None)
