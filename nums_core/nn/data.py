"""Tokens for training: files mapped into memory, windows over them, batches in an order that can be taken up anywhere.

    write_tokens("corpus.npy", pack(texts, tokenizer.encode, separator=0))
    batches = Batches(Windows(open_tokens("corpus.npy"), 256), batch_size=16, seed=0)
    for tokens, labels in batches: ...
    batches.restore(state)                          # of batches.state(), from this run or another

Which window stands where depends on (seed, epoch, position) alone: no shuffled list is kept, and the whole state of an
iterator is one number. Batches are the same however many ranks share them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nums_core.errors import ConfigError, DataFileError, DTypeError, ShapeError

DTYPES = (np.dtype("uint16"), np.dtype("uint32"))


# -- files ------------------------------------------------------------------------------------------------------------

def open_tokens(path: str | Path, dtype: Any = None) -> np.ndarray:
    """Tokens of a file, mapped into memory: read where they are used.

    Parameters
    ----------
    path : .npy, or .bin (nothing but tokens, little-endian)
    dtype : "uint16" or "uint32", optional
        Of a .bin file, which does not say; default uint16.

    Raises
    ------
    DataFileError
        The file is missing, empty, truncated, or holds something else; the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataFileError(f"{path} is no file; write one with write_tokens(path, tokens)")
    if path.suffix == ".npy":
        return _open_npy(path, dtype)
    if path.suffix == ".bin":
        return _open_bin(path, _token_dtype(dtype if dtype is not None else "uint16"))
    raise DataFileError(f"{path} is neither .npy nor .bin; write it with write_tokens(path, tokens)")


def _token_dtype(dtype: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype not in DTYPES:
        raise DTypeError(f"tokens are kept as uint16 or uint32, not {dtype}; use uint32 for a vocabulary over 65536")
    return dtype.newbyteorder("<")


def _open_bin(path: Path, dtype: np.dtype) -> np.ndarray:
    n_bytes = path.stat().st_size
    if not n_bytes:
        raise DataFileError(f"{path} is empty; write it again with write_tokens(path, tokens)")
    if n_bytes % dtype.itemsize:
        raise DataFileError(f"{path} has {n_bytes} bytes, not a multiple of the {dtype.itemsize} of {dtype.name}: it "
                            "is truncated or holds another dtype; write it again, or name the dtype")
    return np.memmap(path, dtype, "r")


def _open_npy(path: Path, dtype: Any) -> np.ndarray:
    try:
        tokens = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise DataFileError(f"{path} is no whole .npy file ({error}); write it again with write_tokens(path, "
                            "tokens)") from error
    if tokens.ndim != 1 or not tokens.size or tokens.dtype.newbyteorder("=") not in DTYPES:
        raise DataFileError(f"{path} holds {tokens.dtype} of shape {tokens.shape}; tokens are one axis of uint16 or "
                            "uint32, at least one: convert them with write_tokens(path, tokens)")
    if dtype is not None and np.dtype(dtype) != tokens.dtype.newbyteorder("="):
        raise DataFileError(f"{path} holds {tokens.dtype}, and {np.dtype(dtype)} was asked for; leave dtype out for "
                            ".npy files")
    return tokens


def write_tokens(path: str | Path, tokens: Any, dtype: Any = None) -> None:
    """Write tokens to a .npy or .bin file; the name appears when all of it is on the disk.

    Parameters
    ----------
    tokens : integers, one axis
    dtype : "uint16" or "uint32", optional
        Default: the smaller one that holds the largest token.
    """
    path, tokens = Path(path), np.asarray(tokens)
    if path.suffix not in (".npy", ".bin"):
        raise ConfigError(f"{path} must end in .npy or .bin: the ending says how tokens are kept")
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not tokens.size:
        raise ShapeError(f"write_tokens() takes one axis of integers, at least one; got {tokens.dtype} of shape "
                         f"{tokens.shape}; join documents with pack()")
    low, high = int(tokens.min()), int(tokens.max())
    kept = _token_dtype(dtype if dtype is not None else "uint16" if high < 2**16 else "uint32")
    if low < 0 or high > np.iinfo(kept).max:
        raise DTypeError(f"tokens from {low} to {high} do not fit {kept.name}; use dtype='uint32' and no negative "
                         "numbers")
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as f:
            data = tokens.astype(kept)
            np.lib.format.write_array(f, data, allow_pickle=False) if path.suffix == ".npy" else data.tofile(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def pack(documents: Iterable[str], encode: Callable[[str], Sequence[int]], separator: int | None = None) -> np.ndarray:
    """Documents as one line of tokens, `separator` after each: windows over it waste nothing on padding.

    Parameters
    ----------
    encode : function of a text to its tokens, such as `Tokenizer.encode`

    Returns
    -------
    int64 array, one axis
    """
    parts = []
    for text in documents:
        tokens = list(encode(text))
        parts.append(np.asarray(tokens if separator is None else [*tokens, separator], np.int64))
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


# -- windows ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Windows:
    """`tokens` cut into windows of `length` tokens and the one behind them; the rest at the end is left out.

    Neighbours share that one token: it is the last label of one window and the first input of the next, so that every
    token but the first is predicted exactly once an epoch.
    """

    tokens: np.ndarray
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"a window of {self.length} tokens predicts nothing; give at least 1")
        if len(self.tokens) <= self.length:
            raise ShapeError(f"{len(self.tokens)} tokens are too few for one window of {self.length} and the token behind "
                             "it; give more text, or shorter windows")

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.length

    def take(self, which: np.ndarray) -> np.ndarray:
        """The windows with these numbers: int32, shape (len(which), length + 1)."""
        at = np.asarray(which, np.int64)[:, None] * self.length + np.arange(self.length + 1)
        return self.tokens[at].astype(np.int32)


# -- order ------------------------------------------------------------------------------------------------------------

_GOLDEN, _MIX1, _MIX2 = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_ROUNDS = 6


def _mixed(x: np.ndarray) -> np.ndarray:
    """A 64-bit mix (the finish of SplitMix64: G. Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def shuffled(position: Any, n: int, seed: int, epoch: Any = 0) -> np.ndarray:
    """Which of `n` things stands at `position` in the order of this seed and epoch: a permutation without a list.

    A Feistel network over the next power of four, walked until it lands below `n` (J. Black, P. Rogaway, "Ciphers with
    arbitrary finite domains", CT-RSA 2002, section 4). The same on every machine and in every version of NumPy.

    Parameters
    ----------
    position, epoch : int or integer array
        `0 <= position < n`; they broadcast.

    Returns
    -------
    int64 array
    """
    position, epoch = np.broadcast_arrays(np.asarray(position, np.uint64), np.asarray(epoch, np.uint64))
    x, epoch = position.reshape(-1), epoch.reshape(-1)
    half = np.uint64((max(n - 1, 1).bit_length() + 1) // 2)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        key = _mixed(_mixed(np.full(epoch.shape, seed % 2**64, np.uint64) + _GOLDEN) ^ (epoch * _MIX2 + _GOLDEN))
        x = _network(x, half, key)
        while (outside := x >= n).any():
            x[outside] = _network(x[outside], half, key[outside])
    return x.astype(np.int64).reshape(position.shape)


def _network(x: np.ndarray, half: np.uint64, key: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for k in range(_ROUNDS):
        left, right = right, left ^ (_mixed(right + key + np.uint64(k + 1) * _GOLDEN) & mask)
    return (left << half) | right


# -- batches ----------------------------------------------------------------------------------------------------------

class Batch(NamedTuple):
    """Inputs and what follows each of them: int32, shape (rows, length)."""

    tokens: np.ndarray
    labels: np.ndarray


class Batches:
    """An endless iterator of `Batch`, shuffled anew every epoch.

    Row `i` of all rows ever given is window `shuffled(i % n, n, seed, i // n)`: a batch at the end of an epoch goes on
    with the next, so that all batches are full and no window is left out.

    Parameters
    ----------
    windows : Windows, or anything with `len` and `take(which)` giving (rows, length + 1)
    batch_size : int
        Rows of a batch over all ranks together.
    shuffle : bool
        False: windows in the order of the text.
    rank, n_ranks : int
        Which of how many equal parts of every batch this iterator gives. The state is that of all ranks: a run may go on
        with another number of ranks.
    """

    def __init__(self, windows: Any, batch_size: int, *, seed: int = 0, shuffle: bool = True, rank: int = 0,
                 n_ranks: int = 1) -> None:
        if batch_size < 1 or n_ranks < 1 or not 0 <= rank < n_ranks or batch_size % n_ranks:
            raise ConfigError(f"a batch of {batch_size} rows cannot be shared by rank {rank} of {n_ranks}; the number of "
                              "ranks must divide the rows, and ranks count from 0")
        if not len(windows):
            raise ShapeError("there are no windows to draw batches from; give more text, or shorter windows")
        self.windows, self.batch_size, self.seed, self.shuffle = windows, batch_size, seed, shuffle
        self.rank, self.n_ranks = rank, n_ranks
        self.rows = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self.at(self.rows)
        self.rows += self.batch_size
        return batch

    def at(self, rows: int) -> Batch:
        """This rank's part of the batch that begins after `rows` rows."""
        share = self.batch_size // self.n_ranks
        at = rows + self.rank * share + np.arange(share)
        epoch, position = np.divmod(at, len(self.windows))
        which = shuffled(position, len(self.windows), self.seed, epoch) if self.shuffle else position
        taken = self.windows.take(which)
        return Batch(np.ascontiguousarray(taken[:, :-1]), np.ascontiguousarray(taken[:, 1:]))

    @property
    def epoch(self) -> float:
        """How often the text has been gone through."""
        return self.rows / len(self.windows)

    def state(self) -> dict[str, Any]:
        """What `restore` needs: plain numbers, for a checkpoint."""
        return {"rows": self.rows} | self._settings()

    def _settings(self) -> dict[str, Any]:
        return {"n_windows": len(self.windows), "seed": self.seed, "shuffle": self.shuffle}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises
        ------
        ConfigError
            The state is of other data or another seed: the order would not be the same. The message lists what differs.
        """
        differing = [f"{name} was {state.get(name)!r} and is {now!r}" for name, now in self._settings().items()
                     if state.get(name) != now]
        rows = state.get("rows")
        if differing or not isinstance(rows, int) or rows < 0:
            raise ConfigError(f"this data state does not belong here: {'; '.join(differing) or f'rows={rows!r}'}; open "
                              "the same file with the same window, seed and shuffle, or start the data anew")
        self.rows = rows


def steps_in(windows: Any, batch_size: int) -> int:
    """Batches in one epoch, the last one rounded up."""
    return math.ceil(len(windows) / batch_size)


__all__ = ["Batch", "Batches", "Windows", "open_tokens", "pack", "shuffled", "steps_in", "write_tokens"]
