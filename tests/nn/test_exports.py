"""The names of the upper floors, imported when first used."""

import subprocess
import sys

import pytest

from nums_core import llm, nn


@pytest.mark.parametrize("package", [nn, llm])
def test_every_exported_name_is_there_with_a_docstring(package):
    assert len(set(package.__all__)) == len(package.__all__)
    assert [n for n in package.__all__ if not getattr(package, n).__doc__] == []
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("package", [nn, llm])
def test_an_unknown_name(package):
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


def test_nothing_is_imported_before_it_is_used():
    program = ("import sys, nums_core.nn, nums_core.llm; "
               "print(sorted(m for m in sys.modules if m.startswith(('nums_core.nn.', 'nums_core.llm.', 'llvmlite', 'tokenizers'))))")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
