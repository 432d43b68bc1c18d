"""Keys and initial values: a function of seed, names and position."""

import numpy as np
import pytest
from scipy import stats

import nums_core as nc
import nums_core.array as na
from nums_core.errors import ConfigError, ShapeError
from nums_core.nn import init
from nums_core.nn.init import Keys


def test_equal_names_give_equal_bits_and_others_do_not():
    draws = [init.normal(k, (1000,)).compute() for k in (
        Keys(0).split("a").split("b"), Keys(0).split("a", "b"), Keys(0).split("b", "a"), Keys(1).split("a", "b"),
        Keys(0).split("a", 0), Keys(0).split("a", "0"))]
    np.testing.assert_array_equal(draws[0], draws[1])
    for i in range(1, 6):
        for j in range(1, i):
            assert abs(np.corrcoef(draws[i], draws[j])[0, 1]) < 0.15


def test_values_do_not_depend_on_blocks():
    whole = init.normal(Keys(3), (50, 70)).compute()
    np.testing.assert_array_equal(init.normal(Keys(3), (50, 70), chunks=(7, 33)).compute(), whole)
    assert init.normal(Keys(3), (50, 70)).numblocks == (1, 1)


@pytest.mark.parametrize("draw, std", [
    (lambda: init.normal(Keys(0), (100, 200), 0.3), 0.3),
    (lambda: init.uniform(Keys(0), (100, 200), 0.5), 0.5 / np.sqrt(3)),
    (lambda: init.xavier(Keys(0), (100, 200)), np.sqrt(2 / 300)),
    (lambda: init.xavier(Keys(0), (100, 200), distribution="normal", gain=2), 2 * np.sqrt(2 / 300)),
    (lambda: init.kaiming(Keys(0), (100, 20, 10)), np.sqrt(2 / 200)),
    (lambda: init.kaiming(Keys(0), (100, 200), distribution="uniform"), np.sqrt(2 / 200)),
])
def test_deviations(draw, std):
    x = draw().compute()
    assert x.dtype == "f4" and abs(x.mean()) < 3 * std / np.sqrt(x.size)
    assert abs(x.std() / std - 1) < 0.02


def test_distributions_and_dtypes():
    assert stats.kstest(init.normal(Keys(5), (4000,), 1.0).compute(), "norm").pvalue > 0.01
    assert stats.kstest(init.uniform(Keys(5), (4000,), 1.0).compute(), "uniform", (-1, 2)).pvalue > 0.01
    assert init.normal(Keys(0), (3,), dtype="f2").compute().dtype == "f2"
    assert init.normal(Keys(0), (3,), dtype="f8").compute().dtype == "f8"
    assert init.zeros((2,)).compute().tolist() == [0, 0] and init.ones((2,), "f8").compute().tolist() == [1, 1]


def test_a_step_is_data():
    traced = []

    @nc.jit
    def run(keys):
        traced.append(1)
        return keys.step * 1

    for step in (3, 4):
        assert run(Keys(0).at(step)).compute().tolist() == [step]
    assert run(Keys(0).at(na.asarray(np.array(7)))).compute().tolist() == [7]
    assert len(traced) <= 2


@pytest.mark.parametrize("call, error, remedy", [
    (lambda: init.kaiming(Keys(0), (3,)), ShapeError, "normal or uniform"),
    (lambda: init.xavier(Keys(0), (3, 3), distribution="flat"), ConfigError, "'normal' or 'uniform'"),
    (lambda: init.normal(Keys(0).at(1), (3,)), ConfigError, "the keys that .at"),
])
def test_refusals(call, error, remedy):
    with pytest.raises(error, match=remedy):
        call()
