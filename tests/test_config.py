"""Settings: defaults, environment, blocks of code, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

import nums_core.array as nc
from nums_core import config
from nums_core.errors import ConfigError


@pytest.mark.parametrize("text, n_bytes", [("512MiB", 512 * 2**20), ("1 kB", 1000), ("3", 3), ("2.5GiB", int(2.5 * 2**30)),
                                           ("1tib", 2**40), (7, 7), (1e3, 1000), ("100 b", 100)])
def test_sizes(text, n_bytes):
    assert config.parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "MiB", "3 parsecs", "1.2.3MB"])
def test_sizes_that_are_none(text):
    with pytest.raises(ConfigError, match="'512MiB'"):
        config.parse_bytes(text)


def test_a_change_for_a_block_of_code():
    before = config.get()
    with config.set(threads=3, block_bytes="1MiB") as inside:
        assert (inside.threads, config.get().block_bytes) == (3, 2**20)
        with config.set(threads=5):
            assert config.get().threads == 5
        assert config.get().threads == 3
    assert config.get() == before


def test_a_change_for_good():
    before = config.get().seed
    config.set(seed=before + 1)
    assert config.get().seed == before + 1
    config.set(seed=before)


def test_a_change_is_undone_after_an_error():
    before = config.get()
    with pytest.raises(RuntimeError), config.set(seed=99):
        raise RuntimeError
    assert config.get() == before


@pytest.mark.parametrize("changes, text", [
    ({"thread": 2}, "did you mean 'threads'"), ({"zzzz": 2}, "the settings are"), ({"reduction_order": "any"}, "'fixed', 'local'"),
    ({"threads": -1}, "below 0"), ({"implicit_compute": "perhaps"}, "write 1 or 0"), ({"block_bytes": 0}, "below 1"),
    ({"layout": "heap"}, "'packed', 'cyclic'"), ({"progress": "loud"}, "'auto', 'on', 'off'")])
def test_refusals_change_nothing(changes, text):
    before = config.get()
    with pytest.raises(ConfigError, match=text):
        config.set(seed=5, **changes)
    assert config.get() == before


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.get().threads = 4


def test_every_setting_has_a_parser_and_a_description():
    names = {f.name for f in dataclasses.fields(config.Config)}
    assert names == set(config._PARSE)
    assert all(f"\n    {n} : " in config.Config.__doc__ for n in names)


def test_dasks_names():
    with config.set({"array.chunk-size": "1MiB", "array.backend": "numpy", "threads": 2}) as inside:
        assert (inside.block_bytes, inside.threads) == (2**20, 2)
    with pytest.raises(ConfigError, match="did you mean"):
        config.set({"thread": 2})


@pytest.mark.parametrize("value, outcome", [("off", "False"), ("1", "True"), ("maybe", "setting 'implicit_compute'")])
def test_environment(value, outcome):
    code = "from nums_core import config; print(config.get().implicit_compute)"
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "NUMS_IMPLICIT_COMPUTE": value}, capture_output=True,
                         text=True, check=False)
    assert outcome in run.stdout + run.stderr


def test_block_bytes_set_the_grid():
    with config.set(block_bytes=8 * 100):
        x = nc.ones((50, 50))
    assert x.chunksize[0] * x.chunksize[1] * 8 <= 800
