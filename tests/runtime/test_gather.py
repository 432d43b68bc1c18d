"""Results whose extent depends on data are put together as their blocks are made."""

import gc
import math
import threading
import weakref

import numpy as np
import pytest

from nums_core.runtime.executors.base import Output
from nums_core.runtime.gather import Appended, Destination

NAN = math.nan


def pieces(heights, columns, rng):
    return [[rng.normal(size=(h, c)) for c in columns] for h in heights]


@pytest.mark.parametrize("most", [0, 10, 10**4])
@pytest.mark.parametrize("order", ["forth", "back", "random"])
def test_blocks_in_any_order(most, order):
    rng = np.random.default_rng(0)
    heights, columns = [3, 0, 5, 1, 7], (4, 2)
    table = pieces(heights, columns, rng)
    output = Output(((NAN,) * 5, columns), "<f8")
    assert Appended.takes(output)
    made = Appended(output, most * 8)
    ks = list(range(10))
    for k in {"forth": ks, "back": ks[::-1], "random": rng.permutation(ks).tolist()}[order]:
        made.add(k, table[k // 2][k % 2])
    np.testing.assert_array_equal(made.finish(), np.block(table))
    assert made.array.flags.owndata


def test_from_many_threads():
    rng = np.random.default_rng(1)
    blocks = [rng.normal(size=int(n)) for n in rng.integers(0, 2000, 200)]
    made = Appended(Output(((NAN,) * 200,), "<f8"), 8 * 2000 * 200)
    left = iter(range(200))

    def work():
        for k in left:
            made.add(k, blocks[k])
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(made.finish(), np.concatenate(blocks))


def test_what_it_takes():
    assert Appended.takes(Output(((NAN, NAN), (3,)), "<i4"))
    assert not Appended.takes(Output(((NAN,), (3,)), "<i4"))  # a single block is the result itself
    assert not Appended.takes(Output(((3, 3), (3,)), "<i4"))
    assert not Appended.takes(Output(((3,), (NAN, NAN)), "<i4"))


def test_unknown_along_other_axes_is_joined():
    rng = np.random.default_rng(2)
    blocks = pieces([3, 2], (4, 1), rng)
    output = Output(((3, 2), (NAN, NAN)), "<f8")
    np.testing.assert_array_equal(Destination(output).join([b for row in blocks for b in row]), np.block(blocks))


@pytest.mark.parametrize("dtype", ["<f8", "|S3", "|O", "<M8[s]", "|b1"])
@pytest.mark.parametrize("shape", [(), (0,), (5000,), (70, 90)])
@pytest.mark.parametrize("run_s", [0.0, 1e9])
def test_memory_touched_early_is_the_same_array(dtype, shape, run_s):
    made = Destination(Output(tuple((n,) for n in shape), dtype), run_s).array
    assert made.shape == shape and made.dtype == dtype and made.flags.owndata


def test_results_go_when_their_last_name_does():
    """A reference cycle in a run would keep gigabytes until the next collection."""
    import nums_core.array as nc

    x = nc.from_array(np.arange(10000.0), 1000)
    gc.disable()
    try:
        for make in (lambda: (x + 1).compute(), lambda: x[x > 5].compute(), lambda: (x + 1).persist().expr.params[0].data.refs[0]):
            values = make()
            alive = weakref.ref(values)
            del values
            assert alive() is None
    finally:
        gc.enable()
