"""GGUF reader against the gguf package's writer; damaged and hostile files."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nums_core.errors import ModelFileError
from nums_core.llm.weights.gguf import TENSOR_TYPES, GGUFFile

gguf = pytest.importorskip("gguf")

SCALAR_ENTRIES = {"a.u8": 200, "a.i8": -3, "a.u16": 60000, "a.i16": -30000, "a.u32": 2**32 - 1, "a.i32": -5, "a.u64": 2**63,
                  "a.i64": -(2**40), "a.f32": 0.5, "a.f64": 1e-300, "a.bool": True, "a.text": "größer"}
ADD = {"u8": "uint8", "i8": "int8", "u16": "uint16", "i16": "int16", "u32": "uint32", "i32": "int32", "u64": "uint64",
       "i64": "int64", "f32": "float32", "f64": "float64", "bool": "bool", "text": "string"}


def write(path, tensors=None, arch="llama", entries=None, arrays=None, alignment=None):
    """A file of the gguf package's writer. `tensors`: name -> ndarray, or (raw bytes, GGML type)."""
    writer = gguf.GGUFWriter(path, arch)
    if alignment:
        writer.add_custom_alignment(alignment)
    for key, value in (entries or {}).items():
        getattr(writer, f"add_{ADD[key.rpartition('.')[2]]}")(key, value)
    for key, value in (arrays or {}).items():
        writer.add_array(key, value)
    for name, value in (tensors or {}).items():
        value, kind = value if isinstance(value, tuple) else (value, None)
        writer.add_tensor(name, value, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file with a bit of everything, and what is in it."""
    rng = np.random.default_rng(0)
    tensors = {"x": rng.normal(size=(3, 4)).astype("f4"), "half": rng.normal(size=(5,)).astype("f2"),
               "scalarlike": np.ones((1,), "f4"), "ints": np.arange(24, dtype="i4").reshape(2, 3, 4)}
    arrays = {"tokens": ["a", "", "ü", "the end"], "scores": [0.5, -1.0], "types": [1, 2, 3]}
    path = write(tmp_path_factory.mktemp("gguf") / "small.gguf", tensors, entries=SCALAR_ENTRIES, arrays=arrays)
    return path, tensors, arrays


def test_metadata_have_their_values_and_types(small):
    file = GGUFFile(small[0])
    assert file.metadata["general.architecture"] == "llama"
    for key, value in SCALAR_ENTRIES.items():
        assert file.metadata[key] == value and type(file.metadata[key]) is type(value), key
    assert file.metadata["tokens"] == small[2]["tokens"]
    np.testing.assert_array_equal(file.metadata["scores"], np.float32([0.5, -1.0]))
    assert file.metadata["types"].tolist() == [1, 2, 3]


def test_tensors_are_views_with_their_values(small):
    file = GGUFFile(small[0])
    assert list(file.tensors) == list(small[1])
    for name, value in small[1].items():
        got = file.array(name)
        np.testing.assert_array_equal(got, value)
        assert got.dtype == value.dtype
        assert np.shares_memory(got, file.file.data) and not got.flags.writeable
        assert file.raw(name).tobytes() == value.tobytes()
        assert file.raw(name).shape == (np.prod(value.shape[:-1], dtype=int), value.shape[-1] * value.itemsize)


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_any_alignment(tmp_path, alignment):
    tensors = {"a": np.float32([1, 2, 3]), "b": np.float32([4]), "c": np.float32([[5, 6]])}
    file = GGUFFile(write(tmp_path / "m.gguf", tensors, alignment=alignment))
    assert all(t.offset_bytes % alignment == 0 for t in file.tensors.values())
    assert {name: file.array(name).tolist() for name in tensors} == {n: v.tolist() for n, v in tensors.items()}


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q6_K", "BF16"])
def test_rows_of_quantised_tensors(tmp_path, name):
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(1).integers(0, 256, (3, 512 // block * size), np.uint8)
    file = GGUFFile(write(tmp_path / "m.gguf", {"w": (raw, kind)}))
    assert file.tensors["w"].shape == (3, 512) and file.tensors["w"].format == name.lower()
    np.testing.assert_array_equal(file.raw("w"), raw)
    with pytest.raises(ModelFileError, match=r"m\.gguf.*'w'.*dequantize"):
        file.array("w")


def test_block_sizes_are_those_of_ggml():
    theirs = {kind.value: (kind.name.lower(), *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGML_QUANT_SIZES}
    assert {k: v for k, v in theirs.items() if k in TENSOR_TYPES} == TENSOR_TYPES


# -- files made by hand, to be wrong in one place ---------------------------------------------------------------------

def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(s)) + s


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def tensor(name, dims=(4,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def container(entries=(), tensors=(), data=b"\0" * 64, magic=b"GGUF", version=3, n_tensors=None, n_entries=None):
    head = magic + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors,
                               len(entries) if n_entries is None else n_entries)
    head += b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def nested(depth):
    return struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 4, 0)


WRONG = {
    "empty": (b"", "not a GGUF file"),
    "other magic": (container(magic=b"PK\3\4"), "not a GGUF file.*pass a .gguf"),
    "version 1": (container(version=1), "version 1 is not read.*convert"),
    "big-endian": (container(version=3 << 24), "big-endian.*convert"),
    "huge tensor count": (container(n_tensors=2**63), "do not fit into the file"),
    "huge entry count": (container(n_entries=2**40), "do not fit into the file"),
    "key over the end": (container([struct.pack("<Q", 60000)]), "metadata entry 0.*announced"),
    "key too long": (container([struct.pack("<Q", 2**50)]), "longer than"),
    "key not utf-8": (container([entry(b"\xff\xfe", 0, b"\1")]), "not UTF-8"),
    "twice the key": (container([entry("k", 0, b"\1"), entry("k", 0, b"\2")]), "'k'.*twice"),
    "unknown value type": (container([entry("k", 13, b"\1")]), "value type 13"),
    "text over the end": (container([entry("k", 8, struct.pack("<Q", 2**62))]), "'k'.*announced"),
    "text not utf-8": (container([entry("k", 8, text(b"\xff"))]), "'k'.*UTF-8"),
    "huge array": (container([entry("k", 9, struct.pack("<IQ", 4, 2**61))]), "'k'.*announced"),
    "huge array of text": (container([entry("k", 9, struct.pack("<IQ", 8, 2**61))]), "'k'.*does not fit"),
    "huge array of arrays": (container([entry("k", 9, struct.pack("<IQ", 9, 2**61))]), "'k'.*does not fit"),
    "string of array over the end": (container([entry("k", 9, struct.pack("<IQQ", 8, 1, 2**40))]), "string 0 of 1"),
    "bad string in array": (container([entry("k", 9, struct.pack("<IQ", 8, 1) + text(b"\xff"))]), "string 0 is not UTF-8"),
    "nested without end": (container([entry("k", 9, nested(500))]), "nested more than"),
    "bool of 2": (container([entry("k", 7, b"\2")]), "truth value"),
    "alignment 0": (container([entry("general.alignment", 4, struct.pack("<I", 0))]), "alignment is 0.*power of two"),
    "alignment 48": (container([entry("general.alignment", 4, struct.pack("<I", 48))]), "power of two"),
    "alignment is text": (container([entry("general.alignment", 8, text("32"))]), "power of two"),
    "twice the tensor": (container(tensors=[tensor("t"), tensor("t", offset=32)]), "'t'.*twice"),
    "five dimensions": (container(tensors=[tensor("t", (1,) * 5)]), "'t'.*5 dimensions"),
    "product over all bounds": (container(tensors=[tensor("t", (2**33, 2**33))]), "'t'.*larger than any memory"),
    "unknown tensor type": (container(tensors=[tensor("t", kind=4)]), "'t'.*type 4 is not known"),
    "half a block": (container(tensors=[tensor("t", (48,), 2)]), "'t'.*48 elements are no whole number of q4_0"),
    "offset off alignment": (container(tensors=[tensor("t", offset=4)]), "'t'.*multiple of the alignment"),
    "data cut short": (container(tensors=[tensor("t", (4, 8))]), "'t'.*cut short"),
    "offset over the end": (container(tensors=[tensor("t", offset=2**40)]), "'t'.*cut short"),
    "overlap": (container(tensors=[tensor("t", (16,)), tensor("u", (4,), offset=32)]), "'t' and 'u' overlap"),
}


@pytest.mark.parametrize("case", WRONG)
def test_broken_rules_are_named(tmp_path, case):
    data, message = WRONG[case]
    path = tmp_path / "wrong.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=f"wrong.gguf: .*{message}"):
        GGUFFile(path)


def test_files_made_by_hand_are_right_where_they_are_not_wrong(tmp_path):
    path = tmp_path / "right.gguf"
    path.write_bytes(container([entry("k", 9, nested(3))], [tensor("t", data := (2, 3)), tensor("e", (0,), offset=32)],
                               np.arange(16, dtype="<f4").tobytes(), version=2))
    file = GGUFFile(path)
    assert file.array("t").shape == data[::-1] and file.array("t")[2, 1] == 5 and file.array("e").size == 0
    assert file.metadata["k"][0][0][0].tolist() == []


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelFileError, match=r"nowhere\.gguf: cannot be read.*existing file"):
        GGUFFile(tmp_path / "nowhere.gguf")


def use(path):
    """Everything a program can ask of a file."""
    file = GGUFFile(path)
    for name, info in file.tensors.items():
        assert file.raw(name).nbytes == info.size_bytes
        if info.format in ("f32", "f16", "i32"):
            assert file.array(name).shape == info.shape
    return file


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.floats(0, 1), st.one_of(st.integers(0, 255).map(lambda b: bytes([b])), st.sampled_from(
    [b"\xff" * 8, b"\0" * 8, struct.pack("<Q", 2**62), struct.pack("<I", 9), struct.pack("<Q", 7)]))), max_size=4),
    keep=st.one_of(st.none(), st.floats(0, 1)))
def test_mutated_files_are_refused_or_read(small, tmp_path, edits, keep):
    data = bytearray(small[0].read_bytes())
    header = data.rindex(b"ints") + 64  # mutations of the data cannot be noticed
    for where, what in edits:
        at = int(where * header)
        data[at:at + len(what)] = what
    path = tmp_path / "mutated.gguf"
    path.write_bytes(data if keep is None else data[:int(keep * len(data))])
    try:
        file = use(path)
    except ModelFileError as error:
        assert "mutated.gguf" in str(error)
    else:
        assert edits or keep is None or int(keep * len(data)) >= max(
            t.offset_bytes + t.size_bytes for t in file.tensors.values())
