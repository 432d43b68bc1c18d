"""Safetensors reader against the safetensors package; damaged and hostile files; shards and pickles."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nums_core.errors import ModelFileError
from nums_core.llm.weights.safetensors import INDEX, SafetensorsFile, SafetensorsFolder

official = pytest.importorskip("safetensors.numpy")

TENSORS = {"a.weight": np.arange(12, dtype="f4").reshape(3, 4), "b": np.float16([1, -2]), "empty": np.zeros((0, 3), "f4"),
           "scalar": np.array(7, "i8"), "flags": np.array([True, False])}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("st") / "model.safetensors"
    official.save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def test_tensors_are_views_with_their_values(small):
    file = SafetensorsFile(small)
    assert dict(file.metadata) == {"format": "pt"} and set(file.tensors) == set(TENSORS)
    for name, value in TENSORS.items():
        got = file.array(name)
        np.testing.assert_array_equal(got, value)
        assert got.dtype == value.dtype and got.shape == value.shape
        assert not value.size or np.shares_memory(got, file.file.data)
        assert file.raw(name).tobytes() == value.tobytes()


def container(header, data=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


DEEP = b'{"t":' + b"[" * 100_000
WRONG = {
    "empty": (b"", "0 are left"),
    "header over the end": (container({}, size=2**63), "a header of"),
    "header is not JSON": (container(b"{not json}"), "no valid JSON"),
    "header is a list": (container(b"[1]"), "must be a JSON object"),
    "header is nested without end": (container(DEEP), "no valid JSON"),
    "header has endless digits": (container(b'{"t": ' + b"9" * 10_000 + b"}"), "no valid JSON"),
    "header is not UTF-8": (container(b'{"\xff": 1}'), "no valid JSON"),
    "twice the name": (container(b'{"t": 1, "t": 2}'), "'t' occurs twice"),
    "metadata are no text": (container({"__metadata__": {"a": 1}}), "__metadata__ must map"),
    "entry is a number": (container({"t": 1}), "'t': its entry must have"),
    "entry has more": (container({"t": entry() | {"x": 1}}, b"\0" * 8), "'t': its entry must have"),
    "unknown dtype": (container({"t": entry("F7")}, b"\0" * 8), "'t': dtype 'F7'.*F32"),
    "dtype is a list": (container({"t": entry(["F32"])}, b"\0" * 8), "'t': dtype"),
    "negative extent": (container({"t": entry(shape=(-2,))}, b"\0" * 8), "'t': its shape must be"),
    "true as an extent": (container({"t": entry(shape=(True, 2))}, b"\0" * 8), "'t': its shape must be"),
    "one offset": (container({"t": entry() | {"data_offsets": [0]}}, b"\0" * 8), "'t': data_offsets must be two"),
    "size does not fit": (container({"t": entry(end=12)}, b"\0" * 12), "'t': shape.*takes 8 bytes.*span 12"),
    "shape over all bounds": (container({"t": entry(shape=(0, 2**62, 2**62), end=0)}), "'t': shape.*larger than"),
    "backwards": (container({"t": entry(begin=8, end=0)}, b"\0" * 8), "'t': shape"),
    "outside the file": (container({"t": entry(begin=8, end=16)}, b"\0" * 8), "'t' should lie.*cut short"),
    "cut short": (container({"t": entry()}, b"\0" * 4), "'t' should lie.*cut short"),
    "overlap": (container({"t": entry(), "u": entry(begin=4, end=12)}, b"\0" * 12), "'t' and 'u' overlap"),
    "gap": (container({"t": entry(), "u": entry(begin=12, end=20)}, b"\0" * 20), "4 bytes belong to no tensor"),
    "tail": (container({"t": entry()}, b"\0" * 9), "1 bytes belong to no tensor"),
}


@pytest.mark.parametrize("case", WRONG)
def test_broken_rules_are_named(tmp_path, case):
    data, message = WRONG[case]
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=f"wrong.safetensors: .*{message}"):
        SafetensorsFile(path)


def test_values_that_do_not_lie_at_multiples_of_their_size(tmp_path):
    path = tmp_path / "odd.safetensors"
    text = json.dumps({"t": entry()}).encode()
    text += b" " * ((3 - len(text)) % 4)  # so that the data begin at an odd byte
    path.write_bytes(container(text, np.float32([1, 2]).tobytes()))
    got = SafetensorsFile(path).array("t")
    assert got.flags.aligned and got.tolist() == [1, 2]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.floats(0, 1), st.one_of(st.integers(0, 255).map(lambda b: bytes([b])), st.sampled_from(
    [b"\xff" * 8, b"9" * 8, b"[[[[", b'"a":', b"-1", b"null", b"{}"]))), max_size=4), keep=st.one_of(st.none(), st.floats(0, 1)))
def test_mutated_files_are_refused_or_read(small, tmp_path, edits, keep):
    data = bytearray(small.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    for where, what in edits:
        at = int(where * header)
        data[at:at + len(what)] = what
    path = tmp_path / "mutated.safetensors"
    path.write_bytes(data if keep is None else data[:int(keep * len(data))])
    try:
        file = SafetensorsFile(path)
        for name, info in file.tensors.items():
            assert file.raw(name).nbytes == info.size_bytes
            if info.format not in ("bf16", "f8_e4m3", "f8_e5m2"):
                assert file.array(name).shape == info.shape
    except ModelFileError as error:
        assert "mutated.safetensors" in str(error)
    else:
        assert keep is None or int(keep * len(data)) == len(data)  # any cut leaves the header or the data incomplete


# -- folders ----------------------------------------------------------------------------------------------------------

def shards(folder, places, files):
    for name, tensors in files.items():
        official.save_file(tensors, folder / name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


X, Y = np.float32([1, 2]), np.float32([[3]])


def test_shards_are_one(tmp_path):
    folder = SafetensorsFolder(shards(tmp_path, {"x": "1.safetensors", "y": "2.safetensors"},
                                      {"1.safetensors": {"x": X}, "2.safetensors": {"y": Y}}))
    assert folder.array("x").tolist() == [1, 2] and folder.array("y").tolist() == [[3]]
    assert {n: t.shape for n, t in folder.tensors.items()} == {"x": (2,), "y": (1, 1)}


@pytest.mark.parametrize(("places", "message"), [
    ({"x": "1.safetensors", "y": "1.safetensors"}, "'y' should be in 1.safetensors and is not"),
    ({"x": "../1.safetensors"}, "no name of a .safetensors file"),
    ({"x": "/etc/passwd"}, "no name of a .safetensors file"),
    ({"x": "1.bin"}, "convert them to safetensors"),
    ({"x": 1}, "no name of a .safetensors file"),
    ({}, "weight_map must map"),
    ({"x": "3.safetensors"}, "3.safetensors: cannot be read"),
    ({"x": "1.safetensors", "z": "2.safetensors"}, "'x' is in 1.safetensors and in 2.safetensors"),
])
def test_an_index_that_does_not_fit(tmp_path, places, message):
    shards(tmp_path, places, {"1.safetensors": {"x": X}, "2.safetensors": {"x": X, "z": Y}})
    with pytest.raises(ModelFileError, match=message):
        SafetensorsFolder(tmp_path)


def test_pickles_are_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "exploded").mkdir, ()

    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(pickle.dumps(Bomb()))
    for opened in (lambda: SafetensorsFolder(tmp_path), lambda: SafetensorsFile(path)):
        with pytest.raises(ModelFileError, match=r"pytorch_model\.bin: a pickle.*save_pretrained"):
            opened()
    assert not (tmp_path / "exploded").exists()


def test_several_files_without_an_index(tmp_path):
    for name in ("1.safetensors", "2.safetensors"):
        official.save_file({"x": X}, tmp_path / name)
    with pytest.raises(ModelFileError, match="add the index"):
        SafetensorsFolder(tmp_path)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(ModelFileError, match=r"no \.safetensors file; pass a folder"):
        SafetensorsFolder(tmp_path)
