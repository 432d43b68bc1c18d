"""How arrays show themselves."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import nums_core.array as nc
from nums_core import config, session
from nums_core.array import display


def test_text():
    assert repr(nc.ones((10, 3), chunks=(5, 3))) == "Array(shape=(10, 3), dtype=float64, blocks=(2, 1), 240 B)"
    assert repr(nc.ones(3, "i4")) == "Array(shape=(3,), dtype=int32, blocks=(1,), 12 B)"
    x = nc.arange(5)
    assert repr(x[x > 2]) == "Array(shape=(?,), dtype=int64, blocks=(1,))"


@pytest.mark.parametrize("shape, chunks", [((10,), 3), ((10, 4), (3, 2)), ((6, 10, 4), 2), ((2, 3, 4, 5), 2), ((1000, 3), (1, 3))])
def test_drawing(shape, chunks):
    x = nc.ones(shape, chunks=chunks)
    svg = ET.fromstring(display.svg(x))
    assert svg.tag == "svg"
    assert f"{x.npartitions} blocks" in svg.attrib["aria-label"]
    texts = {t.text for t in svg.iter("text")}
    assert {str(n) for n in shape[-3:]} <= texts
    points = np.array([[float(v) for v in p.split(",")] for f in svg.iter("polygon") for p in f.attrib["points"].split()])
    assert points.min() >= 0
    assert (points.max(0) <= (float(svg.attrib["width"]), float(svg.attrib["height"]))).all()
    assert len(list(svg.iter("line"))) < 300


@pytest.mark.parametrize("x", [nc.asarray(3), nc.ones((0, 3)), nc.arange(4)[nc.arange(4) > 1]], ids=["0-d", "empty", "unknown"])
def test_nothing_to_draw(x):
    assert display.svg(x) == ""
    assert "<table" in x._repr_html_()


def test_table_says_what_it_is_and_computes_nothing():
    before = session.current().plans_made
    with config.set(implicit_compute=False):
        html = nc.ones((1000, 500), "f4", chunks=(100, 500))._repr_html_()
        unknown = nc.arange(4)[nc.arange(4) > 1]._repr_html_()
    assert session.current().plans_made == before
    for text in ("(1000, 500)", "(100, 500)", "1.9 MiB", "195.3 KiB", "10 (10 × 1)", "float32"):
        assert text in html
    assert "not known yet" in unknown
    assert ET.fromstring(html) is not None


def test_values_as_text():
    data = np.arange(4).reshape(2, 2)
    x = nc.asarray(data, chunks=1)
    assert nc.array_str(x) == str(data)
    assert nc.array_repr(x) == repr(data)
    assert np.array2string(x, separator=",") == np.array2string(data, separator=",")
