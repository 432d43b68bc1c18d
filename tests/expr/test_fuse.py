"""Fusion around reductions: how many tasks there are, and what each of them reads."""

from __future__ import annotations

from collections import Counter

import numpy
import pytest

import nums_core.array as np
from nums_core import config
from nums_core.expr import lower, optimise
from nums_core.expr.lowering import reduction
from nums_core.expr.node import postorder
from nums_core.session import structure


@pytest.fixture(autouse=True)
def as_cut():
    """Small blocks stay as they are cut."""
    with config.set(merge_bytes=0):
        yield


def graph(*arrays):
    roots = [a.expr for a in arrays]
    _, sources = structure(roots)
    made = lower.lower(optimise.optimise(roots), {s: i for i, s in enumerate(sources)})
    made.validate()
    return made


def tasks(*arrays):
    """Number of tasks by label, leaves left out."""
    made: Counter[str] = Counter()
    for f in graph(*arrays).families:
        made[f.label] += f.count if f.role != "leaf" else 0
    return +made


def x(shape=(40, 30), chunks=(10, 15)):
    return np.from_array(numpy.random.default_rng(0).normal(size=shape), chunks)


def test_elementwise_operations_are_part_of_the_reduction():
    assert tasks((x() * 2 + 1).sum(axis=0)) == {"multiply+add+sum": 8, "sum.tree": 2}


def test_axes_that_are_not_cut_need_no_tree():
    assert tasks(x(chunks=(10, 30)).mean(axis=1)) == {"mean": 4}
    assert tasks(x(chunks=(40, 30)).std()) == {"moments": 1}


@pytest.mark.parametrize("name", ["nansum", "nanprod", "nanmax", "nanmean", "nanvar", "nanstd", "nanargmax"])
def test_nan_are_skipped_in_one_pass(name):
    g = graph(getattr(np, name)(x()))
    readers = numpy.bincount(g.in_idx, minlength=g.n_tasks)[g.is_leaf]
    assert (readers == 1).all()
    assert sum(f.count for f in g.families if f.role != "leaf") == 8 + 1


def test_a_value_with_two_readers_is_made_once():
    y = x() + 1
    made = tasks(y.sum(), y.max())
    assert made["add"] == 8 and made["sum"] == made["max"] == 8


# -- reductions that share a pass -------------------------------------------------------------------------------------

def shared(monkeypatch):
    monkeypatch.setattr(reduction, "SHARE_BYTES", 100)


def test_reductions_of_one_array_share_a_pass(monkeypatch):
    shared(monkeypatch)
    a = x((400, 300), (100, 150))
    made = tasks(a.mean(axis=0), a.std(axis=0))
    assert made == {"mean+moments": 8, "pick": 16, "mean.tree": 2, "moments.tree": 2}


def test_they_share_it_over_different_axes_and_operations(monkeypatch):
    shared(monkeypatch)
    a = x((400, 300), (100, 150))
    lazy = [np.log(np.absolute(a)).sum(axis=0), np.log(np.absolute(a)).max(axis=1)]
    assert tasks(*lazy)["log"] == 0 or tasks(*lazy)["absolute+log"] == 8  # the value has two readers: made once
    assert tasks(a.sum(axis=0), a.max(axis=1), a.argmin())["sum+max+argmin"] == 8


def test_small_blocks_do_not_share():
    a = x()
    assert tasks(a.mean(axis=0), a.std(axis=0))["mean"] == 8


def test_nothing_is_shared_where_the_states_are_as_large_as_the_data(monkeypatch):
    shared(monkeypatch)
    a = x((40, 3), (10, 3))
    assert "pick" not in tasks(a.mean(axis=1), a.std(axis=1))


@pytest.mark.parametrize("axes", [(0, 0), (0, 1), (None, 0), (1, None)])
def test_shared_passes_give_the_same_values(axes, monkeypatch):
    shared(monkeypatch)
    values = numpy.random.default_rng(1).normal(size=(400, 60))
    values[3, 4] = values[77, 5] = numpy.nan
    with config.set(seed=axes.__hash__() % 1000):  # plans are kept: not those without sharing
        a = np.from_array(values, (130, 50))
        lazy = [a.mean(axis=axes[0]), a.std(axis=axes[1]), a.max(axis=axes[0]), np.nanvar(a, axis=axes[1]),
                np.nanargmax(a, axis=axes[0]), np.ptp(a, axis=axes[1])]
        got = np.compute(*lazy)
    expected = [values.mean(axis=axes[0]), values.std(axis=axes[1]), values.max(axis=axes[0]),
                numpy.nanvar(values, axis=axes[1]), numpy.nanargmax(values, axis=axes[0]), numpy.ptp(values, axis=axes[1])]
    for ours, theirs in zip(got, expected, strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_fusion_keeps_shape_dtype_and_grid():
    lazy = [(x() * 2).sum(axis=0), x().mean(keepdims=True), np.nanstd(x(), axis=1)]
    for before, after in zip(lazy, optimise.optimise([a.expr for a in lazy]), strict=True):
        assert (after.shape, after.dtype, after.chunks) == (before.expr.shape, before.dtype, before.chunks)
        assert [n.op for n in postorder([after])] == ["leaf", "fused"]
