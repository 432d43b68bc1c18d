"""Arrays larger than the memory budget: right results, within the budget, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import nums_core
import nums_core.array as nc
from nums_core import config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc/self/status")

BUDGET, DATA, BLOCK = 24, 128, 4  # MiB
SLACK = 90  # MiB: what kernels take beside blocks (sorting in place, copies on their way to the disk), fragmentation

PROGRAM = """
import json, sys
import numpy
import nums_core, nums_core.array as np

def peak():
    line = next(x for x in open("/proc/self/status") if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

budget, data, block, path = *map(int, sys.argv[1:4]), sys.argv[4]
nums_core.config.set(block_bytes=block << 20)
nums_core.init(memory=budget << 20, threads=2)
n = (data << 20) // 8
before = peak()
out = {}

def case(name, value, **more):
    report = np.last_report()
    out[name] = {"value": value, "peak": peak() - before, "blocks": float(report.peak_bytes.max()) / 2**20,
                 "spilled": report.spilled_bytes / 2**20, **more}

x = np.random.default_rng(0).normal(size=n)
case("mean", float(x.mean().compute()))
case("std", float(x.std().compute()))

table = np.random.default_rng(1).normal(size=(n // 64, 64))
gram = (table.T @ table).compute() / len(table)
case("gram", float(numpy.abs(gram - numpy.eye(64)).max()))

case("median", float(np.median(np.random.default_rng(2).random(n)).compute()))

uniform = np.random.default_rng(3).random(n)
ordered = np.sort(uniform).persist()
def compare(ordered, source):
    low, high, total = np.compute(source.min(), source.max(), source.sum())
    first, last, same = np.compute(ordered[0], ordered[-1], ordered.sum())
    rising = bool((ordered[1:] >= ordered[:-1]).all().compute())
    return {"rising": rising, "ends": bool(first == low and last == high), "sum": float(abs(same - total) / total)}

case("sort", compare(ordered, uniform))
del ordered

stored = numpy.load(path, mmap_mode="r")
source = np.from_array(stored)
ordered = np.sort(source).persist()
case("sort of a file", compare(ordered, source))
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "values.npy"
    values = np.lib.format.open_memmap(path, "w+", np.float64, ((DATA << 20) // 8,))
    for k, part in enumerate(np.array_split(np.arange(len(values)), 20)):
        values[part[0]:part[-1] + 1] = np.random.default_rng(k).random(len(part))
    values.flush()
    del values
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(BUDGET), str(DATA), str(BLOCK), str(path)],
                          capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_statistics(results):
    n = (DATA << 20) // 8
    assert abs(results["mean"]["value"]) < 5 / n**0.5
    assert abs(results["std"]["value"] - 1) < 5 / n**0.5
    assert results["gram"]["value"] < 6 / (n / 64)**0.5
    assert abs(results["median"]["value"] - 0.5) < 5 / n**0.5


@pytest.mark.parametrize("name", ["sort", "sort of a file"])
def test_sort(results, name):
    checks = results[name]["value"]
    assert checks["rising"] and checks["ends"] and checks["sum"] < 1e-12


@pytest.mark.parametrize("name", ["mean", "std", "gram", "median", "sort", "sort of a file"])
def test_memory_stays_within_the_budget(results, name):
    assert results[name]["blocks"] <= BUDGET + 2 * BLOCK
    assert results[name]["peak"] <= BUDGET + SLACK < DATA


def test_one_pass_statistics_do_not_spill(results):
    assert results["mean"]["spilled"] == results["std"]["spilled"] == results["gram"]["spilled"] == 0


SMALL = 3 * 2**19


@pytest.fixture
def small_budget():
    with config.set(block_bytes=2**18), nums_core.init(memory=SMALL, threads=2) as session:
        yield session


@pytest.mark.parametrize("build", [
    lambda x: nc.sort(x),
    lambda x: nc.argsort(x),
    lambda x: nc.sort(x.reshape(4096, -1), axis=0),
    lambda x: nc.unique(nc.rint(x * 1000)),
    lambda x: nc.quantile(x, [0.1, 0.5]),
    lambda x: x.reshape(4096, -1).T.rechunk((4, -1)) + 1,
    lambda x: (x.reshape(-1, 32) - x.reshape(-1, 32).mean(axis=0)).T @ x.reshape(-1, 32),
], ids=["sort", "argsort", "sort columns", "unique", "quantile", "transpose", "product"])
def test_small_budgets_give_the_same(small_budget, build):
    x = nc.random.default_rng(0).normal(size=2**19)
    kept = build(x).persist()
    report = nc.last_report()
    assert float(report.peak_bytes.max()) <= SMALL + 2**19
    got = kept.compute()
    nums_core.shutdown()
    expected = build(x).compute()
    np.testing.assert_array_equal(got, expected, strict=True)


def test_persisted_blocks_survive_spilling(small_budget):
    x = nc.random.default_rng(0).normal(size=2**19)
    y = (x * 2).persist()
    assert nc.last_report().spilled_bytes > 0
    for _ in range(2):
        np.testing.assert_allclose((y / 2 - x).std().compute(), 0)
    z = (y + 1).persist()
    del y
    np.testing.assert_allclose(float(z.mean().compute()), float((2 * x + 1).mean().compute()))
