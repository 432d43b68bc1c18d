"""QuantizedArray: products, rows and values of packed weights as expressions, in blocks, replayed, differentiated."""

from __future__ import annotations

import numpy as np
import pytest

import nums_core as nc
import nums_core.array as na
from nums_core.array.array import Array
from nums_core.errors import DTypeError, KernelError, ShapeError
from nums_core.nn import functional, quantized
from nums_core.nn.autodiff import grad
from nums_core.nn.quantized import QuantizedArray
from nums_core.runtime.devices import quantized as device
from nums_core.runtime.seconds import TASK_OVERHEAD_S
from nums_core.runtime.supertask import estimated_seconds

FORMATS = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k"]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def matrix(form="q8_0", rows=48, cols=256):
    return QuantizedArray.quantize(normal(rows, cols) * 0.1, form)


def close(made, want, terms):
    assert made.dtype == np.float32 and made.shape == want.shape
    return np.abs(made - want).max(initial=0) <= 1e-6 * np.sqrt(terms) * max(np.abs(want).max(initial=0), 1)


@pytest.fixture(params=["native", "numpy"])
def way(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(device, "native", lambda: None)
    elif device.native() is None:
        pytest.skip("native functions need llvmlite")
    return request.param


@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 5), (0,), (40,)])
@pytest.mark.parametrize("form", FORMATS)
def test_products_are_those_of_the_values(form, lead, way):
    w, x = matrix(form), normal(*lead, 256, seed=1)
    values = w.dequantize().compute()
    assert close(w.matmul(na.asarray(x)).compute(), x @ values.T, 256)


@pytest.mark.parametrize("form", FORMATS)
def test_taking_rows_unpacks_only_them(form, way):
    w, ids = matrix(form), np.array([[3, 0, 47], [-1, 3, 3]])
    made = w.take(na.asarray(ids)).compute()
    assert np.array_equal(made, w.dequantize().compute()[ids])


def test_values_are_those_of_the_codec_and_near_what_was_packed(way):
    x = normal(20, 64) * 0.1
    w = QuantizedArray.quantize(na.asarray(x), "q8_0")
    assert w.shape == (20, 64) and w.nbytes == 20 * 2 * 34
    assert np.abs(w.dequantize().compute() - x).max() < 0.002


@pytest.mark.parametrize("x_chunks, w_chunks", [((2, 256), 48), ((5, 100), 20), ((3, 256), (30, 1, 17)), ((7, 1), 7)])
def test_any_grid_gives_the_same(x_chunks, w_chunks):
    w, x = matrix("q4_1"), normal(7, 256, seed=1)
    cut = w.replace(data=w.data.rechunk((w_chunks, -1)))
    made = cut.matmul(na.asarray(x).rechunk(x_chunks))
    assert made.chunks[1] == cut.data.chunks[0]
    assert close(made.compute(), w.matmul(na.asarray(x)).compute(), 256)
    ids = na.asarray(np.array([47, 0, -48, 31])).rechunk(2)
    assert np.array_equal(cut.take(ids).compute(), w.take(ids).compute())
    assert np.array_equal(cut.dequantize().compute(), w.dequantize().compute())


def test_packed_rows_cut_within_blocks_are_put_together():
    w, x = matrix("q8_0"), na.asarray(normal(2, 256, seed=1))
    cut = w.replace(data=w.data.rechunk((16, 50)))
    assert np.array_equal(cut.matmul(x).compute(), w.matmul(x).compute())


@pytest.mark.parametrize("n", [1, 4, 30])
def test_a_large_matrix_is_several_tasks_and_one_array(n, monkeypatch):
    monkeypatch.setattr(quantized, "PIECE_BYTES", 4096)
    monkeypatch.setattr(device, "TILE_BYTES", 2**16)
    w, x = matrix("q8_0", rows=300), na.asarray(normal(n, 256, seed=1))
    made = w.matmul(x)
    assert made.chunks == ((n,), (300,))
    products = [f for f in made.explain().graph.families if f.kernel.name == "quantized.matmul"]
    assert [f.count for f in products] == [4]  # 300 rows, and no piece has fewer than LEAST_ROWS
    monkeypatch.setattr(quantized, "MOST_PIECES", 1)
    assert np.array_equal(made.compute(), w.matmul(x).compute()) or n > 8
    assert close(made.compute(), x.compute() @ w.dequantize().compute().T, 256)


def test_pieces_depend_on_sizes_alone():
    assert quantized._pieces(576, 360, 1, 576) == (576,)
    vocabulary = quantized._pieces(49152, 612, 1, 576)
    assert len(vocabulary) == 7 and sum(vocabulary) == 49152
    assert len(quantized._pieces(1536, 360, 512, 576)) > 1  # many rows of x: work, not bytes
    assert quantized._pieces(0, 360, 1, 576) == (0,)


def test_tasks_are_taken_to_read_only_the_rows_that_they_read(monkeypatch):
    """A piece reads its rows, an embedding those asked for: else a plan would take either for seconds of work."""
    w, x = matrix("q8_0", rows=4096), na.asarray(normal(1, 256, seed=1))
    monkeypatch.setattr(quantized, "PIECE_BYTES", 2**30)
    whole = estimated_seconds(w.matmul(x).explain()).sum()
    monkeypatch.setattr(quantized, "PIECE_BYTES", 2**17)
    plan = w.matmul(x).explain()
    assert plan.graph.n_tasks == 8 + 2 + 1
    assert whole < estimated_seconds(plan).sum() < 1.2 * whole + 10 * TASK_OVERHEAD_S
    assert estimated_seconds(w.take(na.asarray(np.array([1]))).explain()).sum() < 2 * TASK_OVERHEAD_S


def test_replayed_with_other_inputs_nothing_is_planned_anew():
    w = matrix("q4_1")
    step = nc.jit(lambda w, x: w.matmul(x))
    step(w, na.asarray(normal(1, 256, seed=1)))
    x = normal(1, 256, seed=2)
    made = step(w, na.asarray(x)).compute()
    assert close(made, x @ w.dequantize().compute().T, 256)
    assert nc.last_report() is not None


def test_the_same_bits_every_time_and_as_an_argument_or_a_constant():
    w, x = matrix("q4_k"), na.asarray(normal(1, 256, seed=1))
    first = w.matmul(x).compute()
    assert all(np.array_equal(first, w.matmul(x).compute()) for _ in range(3))
    assert np.array_equal(first, nc.jit(lambda w, x: w.matmul(x))(w, x).compute())
    assert np.array_equal(first, nc.jit(lambda x: w.matmul(x))(x).compute())


def test_functional_takes_one_for_a_weight():
    w, x, b = matrix("q4_0"), normal(3, 256, seed=1), normal(48, seed=2)
    values = w.dequantize().compute()
    assert close(functional.linear(na.asarray(x), w, na.asarray(b)).compute(), x @ values.T + b, 256)
    ids = np.array([1, 5, 5])
    assert np.array_equal(functional.embedding(w, na.asarray(ids)).compute(), values[ids])


@pytest.mark.parametrize("dtype", ["f8", "f2", "i4", "?"])
def test_other_real_numbers_are_taken_as_float32(dtype):
    w = matrix("q8_0")
    x = (normal(2, 256, seed=1) * 3).astype(dtype)
    assert close(w.matmul(na.asarray(x)).compute(), x.astype(np.float32) @ w.dequantize().compute().T, 256)


def test_it_is_a_module():
    w = matrix("q4_1")
    assert list(w.parameters()) == ["data"]
    assert "format: 'q4_1'" in repr(w)


# -- derivatives ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("w_chunks", [12, 5])
def test_the_derivative_with_respect_to_x(w_chunks, way, monkeypatch):
    monkeypatch.setattr(device, "TILE_BYTES", 3 * 4 * 32)
    w = matrix("q8_0", rows=12, cols=32)
    w = w.replace(data=w.data.rechunk((w_chunks, -1)))
    x, weight = normal(2, 3, 32, seed=1), normal(2, 3, 12, seed=2)
    made = grad(lambda x: (w.matmul(x) * na.asarray(weight)).sum())(na.asarray(x)).compute()
    assert close(made, weight @ w.dequantize().compute(), 12)


def test_the_second_derivative():
    """sum((w x)^3) has one that is not constant; checked along random directions in float32."""
    w, v = matrix("q8_0", rows=12, cols=32), na.asarray(normal(32, seed=3))
    f = lambda x: (w.matmul(x) ** 3).sum()
    second = grad(lambda x: (grad(f)(x) * v).sum())(na.asarray(normal(32, seed=1))).compute()
    a = w.dequantize().compute().astype(float)
    x = normal(32, seed=1).astype(float)
    want = 6 * a.T @ ((a @ x) * (a @ normal(32, seed=3)))
    assert np.allclose(second, want, rtol=1e-4, atol=1e-4)


# -- bad input --------------------------------------------------------------------------------------------------------

def test_shapes_and_dtypes_are_refused_at_the_line_that_made_them():
    w = matrix()
    with pytest.raises(ShapeError, match=r"x @ w.T: transpose x"):
        w.matmul(na.asarray(normal(256, 3)))
    with pytest.raises(ShapeError, match="whose last axis is 256"):
        w.matmul(na.asarray(np.float32(1)))
    with pytest.raises(DTypeError, match="astype"):
        w.matmul(na.asarray(np.ones((1, 256), complex)))
    with pytest.raises(DTypeError, match=r"ids.astype\(numpy.int32\)"):
        w.take(na.asarray(np.ones(3)))
    with pytest.raises(ShapeError, match="check the format and the number of columns"):
        QuantizedArray(w.data, "q4_0", (48, 256)).dequantize()
    with pytest.raises(ShapeError, match="give the shape of the matrix"):
        QuantizedArray(w.data, "q8_0", (47, 256)).matmul(na.asarray(normal(256)))


@pytest.mark.parametrize("bad", [48, -49])
def test_a_row_that_does_not_exist(bad):
    with pytest.raises((KernelError, IndexError), match="numbers go from 0 to 47"):
        matrix().take(na.asarray(np.array([0, bad]))).compute()


def test_the_result_is_an_array():
    assert isinstance(matrix().matmul(na.asarray(normal(256))), Array)
