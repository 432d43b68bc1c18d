"""Codecs of GGUF's weight formats: equal to the gguf package bit for bit; encoders are near what they encode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nums_core.errors import ConfigError, DTypeError, ShapeError
from nums_core.llm.weights import formats
from nums_core.ops import quantize as codec
from nums_core.runtime.devices import quantized

gguf = pytest.importorskip("gguf")

FORMATS = sorted(formats.BLOCK)
BLOCKS = [f for f in FORMATS if formats.BLOCK[f][0] > 1]
WIDE = 512


def official(name):
    return gguf.GGMLQuantizationType[name.upper()]


def bits(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


def packed(form, rows, seed=0, n_cols=WIDE):
    """Any bytes at all, but for scales that are infinite or NaN."""
    raw = np.random.default_rng(seed).integers(0, 256, (rows, codec.row_bytes(form, n_cols)), np.uint8)
    blocks = raw.view(codec.LAYOUTS[form][1])
    for name in set(blocks.dtype.names) & {"d", "m", "e", "x"}:
        part = blocks[name]
        part[...] = np.where(np.isfinite(part), part, 1)
    return raw


@pytest.mark.parametrize("form", FORMATS)
def test_blocks_have_the_sizes_of_the_file_format(form):
    assert formats.BLOCK[form] == gguf.GGML_QUANT_SIZES[official(form)]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_values_are_those_of_the_gguf_package(form, native, monkeypatch):
    if not native:
        monkeypatch.setattr(quantized, "native", lambda: None)
    for rows in (0, 1, 37):
        raw = packed(form, rows, rows)
        made = formats.dequantize(raw, form, WIDE)
        assert made.dtype == np.float32 and made.shape == (rows, WIDE)
        if rows:
            with np.errstate(all="ignore"):
                assert np.array_equal(bits(made), bits(gguf.dequantize(raw, official(form))))


def test_many_rows_are_taken_tile_by_tile(monkeypatch):
    monkeypatch.setattr(codec, "TILE_ELEMENTS", 3 * WIDE)
    raw = packed("q6_k", 10)
    assert np.array_equal(bits(codec.decode(raw, "q6_k", WIDE)), bits(gguf.dequantize(raw, official("q6_k"))))


@pytest.mark.parametrize("form", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([0.0, 1e-9, 1e-3, 0.05, 1.0, 300.0]),
       form_of_zero=st.sampled_from(["none", "block", "element"]))
def test_encoders_give_the_bytes_of_the_gguf_package(form, seed, scale, form_of_zero):
    x = (np.random.default_rng(seed).standard_normal((3, 64)) * scale).astype(np.float32)
    if form_of_zero != "none":
        x[0, :32 if form_of_zero == "block" else 1] = 0
    want = np.ascontiguousarray(gguf.quantize(x, official(form))).view(np.uint8).reshape(3, -1)
    assert np.array_equal(formats.quantize(x, form), want)


@pytest.mark.parametrize("form, worst", [("q8_0", 0.006), ("q6_k", 0.02), ("q4_k", 0.08), ("q4_1", 0.085), ("q4_0", 0.095),
                                         ("bf16", 0.002), ("f16", 3e-4), ("f32", 1e-9)])
def test_what_is_encoded_comes_back_nearly(form, worst):
    x = (np.random.default_rng(5).standard_normal((16, 1024)) * 0.03).astype(np.float32)
    back = formats.dequantize(formats.quantize(x, form), form, 1024)
    assert np.sqrt(np.mean((back - x) ** 2)) < worst * 0.03


@pytest.mark.parametrize("form", BLOCKS)
@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_constant_rows_come_back(form, value):
    """Also the K formats: their search must not divide by the zero range of such a block."""
    back = formats.dequantize(formats.quantize(np.full((2, 256), value), form), form, 256)
    assert np.allclose(back, value, rtol=0.01, atol=0)


@pytest.mark.parametrize("form", ["q4_k", "q6_k"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), spread=st.sampled_from([0.0, 1.0, 4.0]), shift=st.sampled_from([-3.0, 0.0, 3.0]))
def test_super_blocks_are_no_worse_than_their_levels_allow(form, seed, spread, shift):
    """Every element is within a level of its own sub-block and half a level of the block's widest: scales have six or eight
    bits of their own."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((1, 256)) * np.exp(spread * rng.standard_normal((1, 256))) + shift).astype(np.float32)
    back = formats.dequantize(formats.quantize(x, form), form, 256)
    parts, error = x.reshape(-1, 32 if form == "q4_k" else 16), np.abs(back - x).max()
    width = np.abs(parts).max() * 2
    assert error <= width / (15 if form == "q4_k" else 63) * 1.5


@pytest.mark.parametrize("form", BLOCKS)
def test_numbers_that_scales_cannot_hold_are_refused(form):
    for bad in (np.nan, np.inf, 1e38):
        x = np.ones((2, 256), np.float32)
        x[1, 7] = bad
        with pytest.raises(DTypeError, match="keep the matrix in bf16 or f32"):
            formats.quantize(x, form)


def test_nan_and_infinity_survive_where_there_are_no_scales():
    x = np.array([[np.nan, np.inf, -np.inf, np.inf]], np.float32)
    for form in ("f32", "f16", "bf16"):
        back = formats.dequantize(formats.quantize(x, form), form, 4)
        assert np.isnan(back[0, 0]) and back[0, 1:].tolist() == [np.inf, -np.inf, np.inf]


def test_bad_input_says_what_to_do():
    with pytest.raises(ConfigError, match="use one of f32, f16"):
        formats.dequantize(np.zeros((1, 4), np.uint8), "q5_9", 4)
    with pytest.raises(ShapeError, match="pad them to 64"):
        formats.quantize(np.zeros((2, 40)), "q8_0")
    with pytest.raises(ShapeError, match=r"shape \(rows, 34\), not \(1, 33\)"):
        formats.dequantize(np.zeros((1, 33), np.uint8), "q8_0", 32)
    with pytest.raises(DTypeError, match="view"):
        formats.dequantize(np.zeros((1, 34), np.int8), "q8_0", 32)
    with pytest.raises(ShapeError, match="reshape"):
        formats.quantize(np.zeros(32), "q8_0")
    with pytest.raises(DTypeError, match="astype"):
        formats.quantize(np.zeros((1, 32), complex), "q8_0")
