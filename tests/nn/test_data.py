"""Files of tokens, windows over them, and the order of batches."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nums_core.errors import ConfigError, DataFileError, DTypeError, ShapeError
from nums_core.nn.data import Batches, Windows, open_tokens, pack, shuffled, steps_in, write_tokens

# -- files ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("suffix", [".npy", ".bin"])
@pytest.mark.parametrize(("high", "dtype"), [(65535, "uint16"), (65536, "uint32")])
def test_tokens_come_back_mapped(tmp_path, suffix, high, dtype):
    path, tokens = tmp_path / f"t{suffix}", np.array([0, 5, high])
    write_tokens(path, tokens)
    found = open_tokens(path, dtype if suffix == ".bin" else None)
    assert (found.dtype, found.tolist(), isinstance(found, np.memmap)) == (np.dtype(dtype), tokens.tolist(), True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.bin"
    write_tokens(path, np.array([1, 2]))

    def full(fd):
        raise OSError("no space left on device")

    monkeypatch.setattr("nums_core.nn.data.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_tokens(path, np.array([3]))
    assert open_tokens(path).tolist() == [1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["t.bin"]


def _bytes_of(tmp_path, array):
    np.save(tmp_path / "whole.npy", array)
    return (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize(("name", "content", "remedy"), [
    ("t.bin", b"", "is empty"),
    ("t.bin", b"abc", "3 bytes, not a multiple of the 2 of uint16: it is truncated or holds another dtype"),
    ("t.txt", b"ab", "neither .npy nor .bin"),
    ("t.npy", b"", "no whole .npy file"),
    ("t.npy", b"\x93NUMPY\x01\x00v\x00", "no whole .npy file"),
    ("t.npy", ("cut", np.arange(100, dtype="u2")), "no whole .npy file"),
    ("t.npy", ("whole", np.arange(4.0)), "one axis of uint16 or uint32"),
    ("t.npy", ("whole", np.zeros((2, 2), "u2")), "one axis of uint16 or uint32"),
    ("t.npy", ("whole", np.zeros(0, "u2")), "at least one"),
    ("t.npy", ("whole", np.array([object()])), "no whole .npy file"),
    ("t.npy", b"PK\x03\x04 no zip", "no whole .npy file"),
])
def test_odd_files_are_refused_by_name(tmp_path, name, content, remedy):
    if isinstance(content, tuple):
        content = _bytes_of(tmp_path, content[1])[:-7 if content[0] == "cut" else None]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataFileError, match=remedy) as caught:
        open_tokens(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_files_and_other_dtypes(tmp_path):
    with pytest.raises(DataFileError, match="is no file; write one"):
        open_tokens(tmp_path / "none.bin")
    write_tokens(tmp_path / "t.npy", [1, 2])
    with pytest.raises(DataFileError, match="leave dtype out"):
        open_tokens(tmp_path / "t.npy", "uint32")
    write_tokens(tmp_path / "t.bin", [1, 2])
    with pytest.raises(DTypeError, match="uint16 or uint32, not int64"):
        open_tokens(tmp_path / "t.bin", "int64")


@pytest.mark.parametrize(("tokens", "kw", "error", "remedy"), [
    ([-1], {}, DTypeError, "no negative numbers"),
    ([70000], {"dtype": "uint16"}, DTypeError, "use dtype='uint32'"),
    ([[1]], {}, ShapeError, "join documents with pack"),
    ([1.5], {}, ShapeError, "one axis of integers"),
    ([], {}, ShapeError, "one axis of integers"),
])
def test_tokens_that_cannot_be_kept(tmp_path, tokens, kw, error, remedy):
    with pytest.raises(error, match=remedy):
        write_tokens(tmp_path / "t.npy", tokens, **kw)
    assert not list(tmp_path.iterdir())


# -- packing and windows ----------------------------------------------------------------------------------------------

def test_packing_wastes_nothing():
    assert pack(["ab", "", "c"], str.encode, separator=0).tolist() == [97, 98, 0, 0, 99, 0]
    assert pack(["ab", "c"], str.encode).tolist() == [97, 98, 99]
    assert pack([], str.encode).dtype == np.int64


@given(st.integers(2, 200), st.integers(1, 20))
def test_windows_predict_every_token_once(n, length):
    tokens = np.arange(n, dtype="u2")
    if n <= length:
        with pytest.raises(ShapeError, match="give more text, or shorter windows"):
            Windows(tokens, length)
        return
    windows = Windows(tokens, length)
    taken = windows.take(np.arange(len(windows)))
    assert (taken.shape, taken.dtype) == ((len(windows), length + 1), np.int32)
    assert taken[:, 1:].ravel().tolist() == list(range(1, len(windows) * length + 1))
    assert n - len(windows) * length - 1 < length


# -- order ------------------------------------------------------------------------------------------------------------

@given(st.integers(1, 600), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_shuffling_is_a_permutation_found_one_by_one(n, seed, epoch):
    order = shuffled(np.arange(n), n, seed, epoch)
    assert sorted(order.tolist()) == list(range(n))
    assert int(shuffled(n // 2, n, seed, epoch)) == order[n // 2]


def test_orders_of_seeds_and_epochs_are_unlike():
    orders = {tuple(shuffled(np.arange(50), 50, seed, epoch).tolist()) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_every_place_is_as_likely_as_any_other():
    """Chi-square of where things land and of what follows what, over many seeds: 48 and 240 degrees of freedom."""
    n, seeds = 7, 1200
    orders = np.array([shuffled(np.arange(n), n, seed) for seed in range(seeds)])
    where = np.array([np.bincount(orders[:, k], minlength=n) for k in range(n)])
    assert ((where - seeds / n) ** 2 / (seeds / n)).sum() < 85
    pairs = np.bincount((orders[:, 0] * n + orders[:, 1]), minlength=n * n).reshape(n, n)[~np.eye(n, dtype=bool)]
    assert ((pairs - seeds / 42) ** 2 / (seeds / 42)).sum() < 75


def test_the_order_is_the_same_for_ever():
    assert shuffled(np.arange(10), 10, seed=0).tolist() == [6, 8, 7, 5, 2, 9, 4, 1, 0, 3]


# -- batches ----------------------------------------------------------------------------------------------------------

WINDOWS = Windows(np.arange(0, 111, dtype="u2"), 5)  # 22 of them


def drawn(batches, n):
    return [next(batches) for _ in range(n)]


def same(a, b):
    return all((x.tokens == y.tokens).all() and (x.labels == y.labels).all() for x, y in zip(a, b, strict=True))


def test_labels_are_the_tokens_behind():
    batch = next(Batches(WINDOWS, 4))
    assert (batch.tokens.shape, batch.tokens.dtype) == ((4, 5), np.int32)
    assert (batch.labels == batch.tokens + 1).all()


def test_an_epoch_gives_every_window_once():
    batches = Batches(WINDOWS, 4, seed=3)
    rows = np.concatenate([b.tokens[:, 0] for b in drawn(batches, 11)])
    for epoch in (rows[:22], rows[22:]):
        assert sorted(epoch.tolist()) == list(range(0, 110, 5))
    assert rows[:22].tolist() != rows[22:].tolist()
    assert (batches.epoch, steps_in(WINDOWS, 4)) == (2.0, 6)


def test_unshuffled_batches_follow_the_text():
    assert next(Batches(WINDOWS, 2, shuffle=False)).tokens.ravel().tolist() == list(range(10))


def test_taking_up_from_every_position():
    whole = drawn(Batches(WINDOWS, 4, seed=1), 14)
    for k in range(14):
        stopped = Batches(WINDOWS, 4, seed=1)
        drawn(stopped, k)
        other = Batches(WINDOWS, 4, seed=1)
        other.restore(json.loads(json.dumps(stopped.state())))
        assert same(drawn(other, 14 - k), whole[k:])


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_ranks_share_the_batches_of_one(n_ranks):
    alone = drawn(Batches(WINDOWS, 8, seed=2), 5)
    ranks = [Batches(WINDOWS, 8, seed=2, rank=r, n_ranks=n_ranks) for r in range(n_ranks)]
    shared = [np.concatenate([next(r).tokens for r in ranks]) for _ in range(5)]
    assert all((a.tokens == s).all() for a, s in zip(alone, shared, strict=True))
    assert ranks[0].state() == ranks[-1].state() == {"rows": 40, "n_windows": 22, "seed": 2, "shuffle": True}


def test_a_state_of_other_data_is_refused_with_what_differs():
    batches = Batches(WINDOWS, 4)
    for state, remedy in ((Batches(WINDOWS, 4, seed=9).state(), "seed was 9 and is 0"),
                          (batches.state() | {"n_windows": 3}, "n_windows was 3 and is 22"),
                          (batches.state() | {"rows": -1}, "rows=-1"), ({}, "start the data anew")):
        with pytest.raises(ConfigError, match=remedy):
            batches.restore(state)
    assert batches.rows == 0


@pytest.mark.parametrize("kw", [{"batch_size": 0}, {"batch_size": 6, "n_ranks": 4}, {"batch_size": 4, "rank": 2, "n_ranks": 2}])
def test_batches_that_cannot_be_shared(kw):
    with pytest.raises(ConfigError, match="must divide the rows"):
        Batches(WINDOWS, **kw)
