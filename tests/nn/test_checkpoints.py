"""Checkpoints: whole or not there, the same bits back, and refusals that list what differs."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

import nums_core.array as na
from nums_core.errors import CheckpointError, ConfigError, MissingBackendError
from nums_core.nn import checkpoints
from nums_core.nn.checkpoints import Checkpoints, describe, load, save

DTYPES = ["bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def values(seed=0):
    rng = np.random.default_rng(seed)
    return {"layers": [{"w": na.asarray(rng.normal(size=(6, 4)).astype("float32"), chunks=(3, 4))} for _ in range(3)],
            "step": na.asarray(np.int64(7)), "none": None, "bias": na.asarray(rng.normal(size=5))}


def bits(tree):
    return [np.asarray(x.compute()).tobytes() for x in (*(layer["w"] for layer in tree["layers"]), tree["step"], tree["bias"])]


def test_the_same_bits_come_back_with_blocks_and_values(tmp_path):
    tree = values()
    save(tmp_path / "c", tree, {"data": {"rows": 12}, "note": "x"})
    found, extra = load(tmp_path / "c", values(1))
    assert bits(found) == bits(tree)
    assert extra == {"data": {"rows": 12}, "note": "x"}
    assert (found["layers"][0]["w"].chunks, found["none"]) == (((3, 3), (4,)), None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(tmp_path, dtype):
    x = np.arange(6).reshape(2, 3).astype(dtype)
    save(tmp_path / "c", {"x": na.asarray(x), "t": x.T, "empty": np.zeros((0, 3), dtype)})
    assert describe(tmp_path / "c")["x"] == ((2, 3), dtype, "model-00001-of-00001.safetensors")
    found, _ = load(tmp_path / "c", {"x": x, "t": x.T, "empty": np.zeros((0, 3), dtype)})
    np.testing.assert_array_equal(found["x"].compute(), x)
    np.testing.assert_array_equal(found["t"].compute(), x.T)
    assert found["empty"].shape == (0, 3)


def test_shards_hold_no_more_than_asked_and_hugging_face_can_read_them(tmp_path):
    from safetensors.numpy import load_file

    save(tmp_path / "c", values(), shard_bytes=200)
    index = json.loads((tmp_path / "c" / "model.safetensors.index.json").read_text())
    files = {p.name for p in (tmp_path / "c").glob("*.safetensors")}
    assert set(index["weight_map"].values()) == files == {f"model-{k:05}-of-00002.safetensors" for k in (1, 2)}
    tensors = {f: load_file(tmp_path / "c" / f) for f in files}
    assert all(sum(x.nbytes for x in t.values()) <= 200 for t in tensors.values())
    assert index["metadata"]["total_size"] == 3 * 96 + 8 + 40
    np.testing.assert_array_equal(tensors[index["weight_map"]["layers.1.w"]]["layers.1.w"], values()["layers"][1]["w"].compute())
    assert bits(load(tmp_path / "c", values(1))[0]) == bits(values())


def test_differences_are_listed_and_nothing_is_loaded(tmp_path):
    save(tmp_path / "c", {"a": np.zeros(2), "b": np.zeros(3), "c": np.zeros(4), "d": np.zeros(1)})
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "c", {"a": np.zeros(2), "b": np.zeros((3, 1)), "c": np.zeros(4, "float32"), "e": np.zeros(1)})
    text = str(caught.value)
    assert "make one of the same settings" in text
    assert [line.strip() for line in text.splitlines()[1:]] == [
        "missing: e", "not asked for: d", "b: float64[3] in the file, float64[3, 1] asked for",
        "c: float64[4] in the file, float32[4] asked for"]


def test_a_long_list_is_cut_short(tmp_path):
    save(tmp_path / "c", {})
    with pytest.raises(CheckpointError, match="and 5 more"):
        load(tmp_path / "c", [np.zeros(1)] * 25)


@pytest.mark.parametrize(("tree", "extra", "remedy"), [
    ({"a": 3}, None, "a is a int, not an array; plain values belong into `extra`"),
    ({"z": np.zeros(2, complex)}, None, "cast it to one of"),
    ({}, {"x": np.zeros(2)}, "put arrays into the tree"),
])
def test_what_cannot_be_saved_leaves_no_trace(tmp_path, tree, extra, remedy):
    with pytest.raises(CheckpointError, match=remedy):
        save(tmp_path / "c", tree, extra)
    assert not list(tmp_path.iterdir())


# -- whole or not there -----------------------------------------------------------------------------------------------

class Crash(BaseException):
    """Not an Exception: as when the process is stopped."""


@pytest.mark.parametrize("survives", [False, True], ids=["killed", "unwound"])
def test_a_crash_at_any_write_leaves_no_half_checkpoint(tmp_path, monkeypatch, survives):
    """Stop at the first, second, ... system call that matters; the final name must hold all of the old or of the new."""
    old, new = values(1), values(2)
    if not survives:  # the clean-up does not run either
        monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda *a, **k: None)
    crashes = 0
    for stop in range(100):
        folder = tmp_path / str(stop)
        for name in ("0", "1"):
            save(folder / f"step-0000000{name}", old)
        calls = _stopping(monkeypatch, stop)
        try:
            save(folder / "step-00000002", new)
        except Crash:
            crashes += 1
        finally:
            for undo in calls:
                undo()
        run = Checkpoints(folder)
        assert run.steps() in ([0, 1], [0, 1, 2])
        found, _ = run.load(values(3))
        assert bits(found) == bits(new if 2 in run.steps() else old)
        if crashes <= stop:  # it went through
            break
    assert crashes == stop >= 6


def _stopping(monkeypatch, stop):
    """Raise Crash at call number `stop` of those that write; returns what takes this back."""
    count, undo = [0], []
    for module, name in ((checkpoints.os, "fsync"), (checkpoints.os, "rename"), (checkpoints, "_write_tensors"),
                         (checkpoints, "_write_text")):
        real = getattr(module, name)

        def counted(*args, real=real, **kw):
            count[0] += 1
            if count[0] > stop:
                raise Crash
            return real(*args, **kw)

        setattr(module, name, counted)
        undo.append(lambda module=module, name=name, real=real: setattr(module, name, real))
    return undo


def test_what_a_crash_left_goes_with_the_next_save(tmp_path):
    (tmp_path / ".step-00000001.99-ab.partial").mkdir()
    run = Checkpoints(tmp_path)
    assert run.steps() == []
    run.save(2, values())
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]


def test_a_checkpoint_of_the_same_name_is_replaced(tmp_path):
    save(tmp_path / "c", values(1))
    save(tmp_path / "c", values(2))
    assert bits(load(tmp_path / "c", values())[0]) == bits(values(2))
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize(("damage", "remedy"), [
    (lambda c: (c / "model.safetensors.index.json").unlink(), "index.json is missing or damaged"),
    (lambda c: (c / "model.safetensors.index.json").write_text("[1]"), "no table of names"),
    (lambda c: (c / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x"}}'), "no index of tensors"),
    (lambda c: (c / "model.safetensors.index.json").write_text('{"weight_map": {}}'), "another model"),
    (lambda c: (c / "model-00001-of-00001.safetensors").unlink(), "safetensors is missing or damaged"),
    (lambda c: os.truncate(c / "model-00001-of-00001.safetensors", 150), "safetensors is missing or damaged"),
    (lambda c: (c / "model-00001-of-00001.safetensors").write_bytes(b"\xff" * 64), "safetensors is missing or damaged"),
    (lambda c: (c / "state.json").write_text("{"), "state.json is missing or damaged"),
    (shutil.rmtree, "is no folder"),
])
def test_damaged_checkpoints_name_the_file(tmp_path, damage, remedy):
    save(tmp_path / "c", {"a": np.zeros(9), "b": np.zeros(2)})
    damage(tmp_path / "c")
    with pytest.raises(CheckpointError, match=remedy):
        load(tmp_path / "c", {"a": np.zeros(9), "b": np.zeros(2)})


def test_an_index_that_tells_of_other_tensors(tmp_path):
    save(tmp_path / "c", {"a": np.zeros(9)})
    index = tmp_path / "c" / "model.safetensors.index.json"
    index.write_text(index.read_text().replace('"a"', '"z"'))
    with pytest.raises(CheckpointError, match="do not hold what its index says"):
        load(tmp_path / "c", {"z": np.zeros(9)})


# -- a folder of them -------------------------------------------------------------------------------------------------

def test_the_last_ones_stay(tmp_path):
    run = Checkpoints(tmp_path / "run", keep=2)
    for step in (5, 10, 15, 20):
        run.save(step, values(step), {"n": step})
    assert run.steps() == [15, 20]
    found, extra = run.load(values())
    assert (bits(found), extra) == (bits(values(20)), {"step": 20, "n": 20})
    assert run.load(values(), 15)[1]["n"] == 15
    run.save(1, values())  # begun anew: what was just written never goes
    assert run.steps() == [1, 20]


def test_a_folder_without_checkpoints_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="it has none: save one"):
        Checkpoints(tmp_path / "run").load(values())
    Checkpoints(tmp_path).save(3, values())
    with pytest.raises(CheckpointError, match="no checkpoint of step 4; it has 3"):
        Checkpoints(tmp_path).load(values(), 4)
    with pytest.raises(ConfigError, match="at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_without_safetensors_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingBackendError, match="pip install"):
        save(tmp_path / "c", values())
    assert not list(tmp_path.iterdir())
