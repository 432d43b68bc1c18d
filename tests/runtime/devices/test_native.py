"""Native functions: products and unpacking with packed weights, for this processor and for any."""

from __future__ import annotations

import ctypes
import importlib
import mmap
import sys
import threading

import numpy as np
import pytest

from nums_core.errors import MissingBackendError
from nums_core.ops import quantize as codec
from nums_core.runtime.devices import native, quantized

pytest.importorskip("llvmlite")
from nums_core.runtime.devices.native import dense, jit, products  # noqa: E402
from nums_core.runtime.devices.native.emit import F32, Emitter  # noqa: E402

FORMATS = sorted(codec.LAYOUTS)
WIDE = jit.Target("", "", 16, jit.portable().fma, jit.portable().half)  # as on a processor with registers of 64 bytes
TARGETS = {"host": jit.host(), "portable": jit.portable(), "wide": WIDE}


def product(x, raw, form, out, target=None):
    products.Product(form, x.shape[1], target)(x, raw, out)


def weights(form, rows, cols, seed=0):
    w = (np.random.default_rng(seed).standard_normal((rows, cols)) * 0.1).astype(np.float32)
    raw = codec.encode(w, form)
    return raw, codec.decode(raw, form, cols)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("form", FORMATS)
def test_unpacking_gives_the_bits_of_the_codec(form, target):
    raw, w = weights(form, 5, 512)
    out = np.full((5, 512), np.nan, np.float32)
    products.unpack(raw, form, out, target)
    assert np.array_equal(out.view(np.uint32), w.view(np.uint32))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_float16_is_converted_exactly(target):
    every = np.arange(2**16, dtype=np.uint16).reshape(-1, 64)
    out = np.empty(every.shape, np.float32)
    products.unpack(every.view(np.uint8), "f16", out, target)
    want = every.view(np.float16).astype(np.float32)
    assert np.array_equal(np.isnan(out), np.isnan(want))
    assert np.array_equal(out.view(np.uint32)[~np.isnan(want)], want.view(np.uint32)[~np.isnan(want)])


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("form", FORMATS)
def test_products_agree_with_numpy(form, n):
    raw, w = weights(form, 19, 768)
    x = np.random.default_rng(1).standard_normal((n, 768)).astype(np.float32)
    out = np.full((n, 19), np.nan, np.float32)
    product(x, raw, form, out)
    scale = np.abs(x.astype(float)) @ np.abs(w.astype(float)).T
    assert (np.abs(out - x.astype(float) @ w.astype(float).T) <= 1e-6 * scale).all()


@pytest.mark.parametrize("target", [TARGETS["portable"], TARGETS["wide"]], ids=["portable", "wide"])
@pytest.mark.parametrize("form", ["q4_1", "q6_k", "f16"])
@pytest.mark.parametrize("n", [1, 3])
def test_products_need_no_instruction_that_only_some_processors_have(form, n, target):
    raw, w = weights(form, 7, 256)
    x = np.random.default_rng(1).standard_normal((n, 256)).astype(np.float32)
    out = np.empty((n, 7), np.float32)
    product(x, raw, form, out, target)
    assert np.allclose(out, x.astype(float) @ w.astype(float).T, atol=1e-5)


@pytest.mark.parametrize("form", ["q4_1", "q4_k", "bf16"])
@pytest.mark.parametrize("n", [1, 4])
def test_bits_do_not_depend_on_how_rows_are_cut(form, n):
    raw, _ = weights(form, 23, 512)
    x = np.random.default_rng(2).standard_normal((n, 512)).astype(np.float32)
    whole, parts = np.empty((n, 23), np.float32), np.full((n, 23), np.nan, np.float32)
    product(x, raw, form, whole)
    for i, stop in ((0, 1), (1, 9), (9, 23)):
        product(x, raw[i:stop], form, parts[:, i:stop])
    assert np.array_equal(whole, parts)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("form", FORMATS)
def test_products_of_many_rows_agree_with_numpy(form, target):
    raw, w = weights(form, 13, 768)  # two groups of six rows and one over
    for n in (1, 16, 33, 40):
        x = np.random.default_rng(1).standard_normal((n, 768)).astype(np.float32)
        out = np.full((n, 13), np.nan, np.float32)
        dense.product(x, raw, form, out, target)
        scale = np.abs(x.astype(float)) @ np.abs(w.astype(float)).T
        assert (np.abs(out - x.astype(float) @ w.astype(float).T) <= 2e-6 * scale).all()


def test_products_of_many_rows_in_several_tiles(monkeypatch):
    monkeypatch.setattr(dense, "TILE_BYTES", 1)  # as few rows as there can be
    raw, w = weights("q4_1", 40, 64)
    x = np.random.default_rng(1).standard_normal((50, 64)).astype(np.float32)
    out = np.empty((50, 40), np.float32)
    dense.product(x, raw, "q4_1", out)
    np.testing.assert_allclose(out, x @ w.T, rtol=1e-4, atol=1e-5)


def test_an_element_has_the_same_bits_whatever_stands_beside_it():
    raw, _ = weights("q4_1", 25, 320)
    x = np.random.default_rng(2).standard_normal((70, 320)).astype(np.float32)
    whole = np.empty((70, 25), np.float32)
    dense.product(x, raw, "q4_1", whole)
    for rows, cols in ((slice(3, 40), slice(0, 25)), (slice(0, 70), slice(7, 12)), (slice(69, 70), slice(24, 25))):
        part = np.empty_like(whole[rows, cols])
        dense.product(x[rows].copy(), raw[cols], "q4_1", part)
        assert np.array_equal(part, whole[rows, cols])


def test_products_of_many_rows_write_nothing_outside():
    raw, w = weights("q4_0", 8, 96)
    room = np.full((45, 20), 7.0, np.float32)
    dense.product(np.ones((43, 96), np.float32), raw, "q4_0", room[1:44, 3:11])
    assert (room[:, :3] == 7).all() and (room[:, 11:] == 7).all() and (room[0] == 7).all() and (room[44] == 7).all()
    assert np.allclose(room[1:44, 3:11], w.sum(axis=1), atol=1e-4)


def test_a_row_of_x_has_the_same_bits_in_any_batch_of_two_to_eight():
    raw, _ = weights("q8_0", 11, 320)
    x = np.random.default_rng(2).standard_normal((8, 320)).astype(np.float32)
    made = {}
    for n in range(2, 9):
        made[n] = np.empty((n, 11), np.float32)
        product(x[:n], raw, "q8_0", made[n])
    assert all(np.array_equal(made[n][:2], made[8][:2]) for n in made)


def test_nothing_is_written_outside():
    raw, w = weights("q4_0", 6, 96)
    room = np.full((2, 20), 7.0, np.float32)
    product(np.ones((2, 96), np.float32), raw, "q4_0", room[:, 3:9])
    assert (room[:, :3] == 7).all() and (room[:, 9:] == 7).all()
    assert np.allclose(room[:, 3:9], w.sum(axis=1), atol=1e-4)
    flat = np.full(6 * 96 + 32, 7.0, np.float32)
    products.unpack(raw, "q4_0", flat[16:-16].reshape(6, 96))
    assert (flat[:16] == 7).all() and (flat[-16:] == 7).all()


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_read_behind_the_last_byte(form):
    """Packed rows at the end of mapped memory, before a page that must not be touched: else the process dies."""
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    raw, w = weights(form, 3, 256)
    end = -(-raw.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, end + mmap.PAGESIZE), np.uint8)
    mine = memory[end - raw.nbytes:end].reshape(raw.shape)
    mine[...] = raw
    assert protect(memory[end:].ctypes.data, mmap.PAGESIZE, 0) == 0
    try:
        out, made = np.empty((3, 256), np.float32), np.empty((1, 3), np.float32)
        products.unpack(mine, form, out)
        product(np.ones((1, 256), np.float32), mine, form, made)
    finally:
        assert protect(memory[end:].ctypes.data, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
    assert np.array_equal(out, w)
    assert np.allclose(made[0], w.sum(axis=1), atol=1e-4)


def test_threads_run_side_by_side_with_scratch_of_their_own():
    raw, _ = weights("q4_1", 64, 512)
    xs = [np.random.default_rng(k).standard_normal((1, 512)).astype(np.float32) for k in range(4)]
    want = [np.empty((1, 64), np.float32) for _ in xs]
    for x, out in zip(xs, want):
        product(x, raw, "q4_1", out)
    wrong = []

    def work(k):
        out = np.empty((1, 64), np.float32)
        for _ in range(200):
            product(xs[k], raw, "q4_1", out)
            if not np.array_equal(out, want[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_loop_carries_values_and_may_run_not_at_all():
    e = Emitter("sums", [jit.ARRAY, jit.ARRAY, jit.INTEGER], jit.host())
    x, out, n = e.args
    total, = e.loop(e.int64(0), n, e.lanes, lambda i, sums: [
        e.build.fadd(sums[0], e.floats(x, e.build.mul(i, e.int64(4))))], [e.zeros()])
    e.store(e.total(total), out)
    assert F32 == total.type.element
    sums = e.compiled()
    values, made = np.arange(32, dtype=np.float32), np.empty(1, np.float32)
    for count in (32, 0):
        sums(jit.array_argument(values), jit.array_argument(made), count)
        assert made[0] == values[:count].sum()


def test_an_old_or_missing_llvmlite_is_told_with_the_remedy(monkeypatch):
    for name in ("jit", "emit", "unpack", "products"):
        monkeypatch.delitem(sys.modules, f"{native.__name__}.{name}")
        monkeypatch.delattr(native, name)
    monkeypatch.setattr("llvmlite.__version__", "0.44.1")
    with pytest.raises(MissingBackendError, match="pip install -U llvmlite"):
        importlib.import_module("nums_core.runtime.devices.native.jit")
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(MissingBackendError, match=r"pip install nums-core\[llm\]"):
        importlib.import_module("nums_core.runtime.devices.native.jit")
    assert quantized.native.__wrapped__() is None
