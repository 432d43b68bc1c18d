"""Each row of a table has what hangs off it: a kernel, a lowering rule, a test against NumPy."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import nums_core
from nums_core.expr import lower, lowering
from nums_core.ops import op
from nums_core.ops.elementwise import ELEMENTWISE, UFUNCS
from nums_core.ops.reductions import EXACT, REDUCTIONS
from nums_core.ops.scans import SCANS
from nums_core.runtime import devices
from nums_core.runtime.devices import numpy as device
from nums_core.runtime.devices.elementwise import CALLS
from nums_core.runtime.devices.reducers import REDUCERS

PACKAGE = Path(nums_core.__file__).parent
SOURCES = {p: p.read_text() for p in PACKAGE.rglob("*.py")}
TESTS = "\n".join(p.read_text() for p in Path(__file__).parents[1].rglob("test_*.py"))
BLOCK_RULES = {"blockwise", "reduce", "contract", "gather", "create", "scan", "custom"}


def kernels_of(package):
    return {m.name: importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)
            if m.name not in ("cupy",)}


def test_every_numpy_ufunc_of_single_elements_is_a_row():
    ufuncs = {f.__name__ for f in vars(np).values() if isinstance(f, np.ufunc) and f.signature is None}
    assert ufuncs == set(UFUNCS)
    assert ufuncs <= {n.split(".")[0] for n in ELEMENTWISE}


@pytest.mark.parametrize("rows, kernels", [(ELEMENTWISE, CALLS), (REDUCTIONS, REDUCERS)], ids=["elementwise", "reductions"])
def test_rows_and_kernels_are_the_same(rows, kernels):
    assert set(rows) == set(kernels)


def test_ops_say_how_their_blocks_map():
    for table in (ELEMENTWISE, REDUCTIONS):
        for row in table.values():
            assert isinstance(row, op.Op)
            assert row.block_rule in BLOCK_RULES
            assert row.flop > 0
    assert set(REDUCTIONS) >= EXACT | set(SCANS.values())
    assert set(UFUNCS) >= set(SCANS)
    with pytest.raises(ValueError, match="exists already"):
        ELEMENTWISE.row("add", "blockwise", 2, op.same)


# Rows by whose name no test speaks of them, with the test that runs them all the same.
BY_ANOTHER_NAME = {"tally": "test_histogram", "moments": "test_var", "cast": "test_casts", "user": "test_frompyfunc",
                   "count": "count_nonzero"}


@pytest.mark.parametrize("name", sorted({*ELEMENTWISE, *REDUCTIONS, *SCANS}))
def test_every_row_is_tested_against_numpy(name):
    if name.split(".")[0] in UFUNCS:  # tests/array/test_elementwise.py is parametrised by the table
        return
    assert re.search(rf"\b{BY_ANOTHER_NAME.get(name, name)}", TESTS), f"no test names {name}"


def test_every_kernel_that_is_asked_for_exists():
    tables = {name: m.KERNELS for name, m in kernels_of(devices).items() if hasattr(m, "KERNELS")}
    asked = {k for text in SOURCES.values() for k in re.findall(r'Kernel\("([a-z_.]+)"', text)} - {"held", "view", "read", "bound"}  # the executors' own
    for name in asked:
        module, _, row = name.rpartition(".")
        assert row in (tables[module] if module else device.KERNELS), f"kernel {name} has no factory"


def test_every_lowering_rule_that_is_asked_for_exists():
    tables = {name: m.LOWER for name, m in kernels_of(lowering).items() if hasattr(m, "LOWER")}
    asked = {k for text in SOURCES.values()
             for k in re.findall(r'(?:wrap|make|custom|build\.custom)\(\s*"([a-z_]+\.[a-z_]+)"', text)}
    assert asked
    for name in asked:
        module, _, row = name.partition(".")
        assert row in tables[module], f"operation {name} has no lowering rule"


def test_no_lowering_rule_is_left_over():
    text = "\n".join(SOURCES.values())
    unused = [f"{m}.{row}" for m, module in kernels_of(lowering).items() for row in getattr(module, "LOWER", ())
              if f'"{m}.{row}"' not in text]
    assert unused == []
    assert set(lower.LOWER) >= {"leaf", "create", "fused", "contract", "gather", "concat", "map", "pick"}
