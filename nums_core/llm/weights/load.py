"""A model from its files: `load_model("model.gguf")`, `load_model("folder")`.

Nothing is copied that need not be: float32 tensors, and with "keep" all quantised ones, are views of the mapped file, so the
system reads them when they are first used, and shares them between processes.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nums_core.array.array import from_array
from nums_core.errors import ConfigError, ModelFileError
from nums_core.llm.config import ModelConfig, from_folder, from_gguf
from nums_core.llm.weights.gguf import GGUFFile
from nums_core.llm.weights.mapped import TensorInfo
from nums_core.llm.weights.names import Found, Part, match
from nums_core.llm.weights.safetensors import SafetensorsFolder, refuse_pickle

if TYPE_CHECKING:
    from nums_core.llm.models.decoder import Decoder

DTYPES = ("float32", "keep")


def load_model(path: str | Path, dtype: str = "float32") -> tuple[Decoder, ModelConfig]:
    """The model in a file or folder.

    Parameters
    ----------
    path : str or Path
        A .gguf file, or a Hugging Face folder: config.json with model.safetensors, or with shards and their index.
    dtype : "float32" or "keep"
        Of the matrices. "keep" leaves half-precision and quantised ones as they lie in the file, as `QuantizedArray`s.
        Vectors (norms, biases) are float32 in any case.

    Returns
    -------
    model : Decoder
        Its arrays are of one block each.
    config : ModelConfig

    Raises
    ------
    ModelFileError
        A file is damaged, of an unknown kind, or does not hold the tensors that its configuration asks for.
    ConfigError
        Another `dtype`.

    Notes
    -----
    Time and memory: the file's, to decode it; none to speak of for what is kept as it is.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not one that a model can be loaded in; pass {' or '.join(map(repr, DTYPES))}")
    path = Path(path)
    weights, config, kind = _open(path)
    skeleton = _skeleton(config)
    found = match(config, kind, {p: x.shape for p, x in skeleton.parameters().items()}, weights.tensors, path)
    with ThreadPoolExecutor() as pool:
        leaves = pool.map(lambda f: _leaf(weights, f, config, dtype), found.values())
        return skeleton.with_parameters(dict(zip(found, leaves))), config


def _open(path: Path) -> tuple[Any, ModelConfig, str]:
    """The open weights, what model they are of, and which names they have."""
    if path.is_dir():
        config = from_folder(path)
        return SafetensorsFolder(path), config, "hf"
    refuse_pickle(path)
    if path.suffix == ".safetensors":
        raise ModelFileError(f"{path}: weights without their configuration; pass the folder that has config.json too")
    file = GGUFFile(path)
    return file, from_gguf(file), "gguf"


def _skeleton(config: ModelConfig) -> Decoder:
    """A model of this configuration that is never computed: only its shapes are looked at. Its layers are one and the same."""
    from nums_core.llm.models import family
    from nums_core.nn.init import Keys

    one = family(config.family).init(Keys(0), replace(config, n_layers=1))
    return one.replace(config=config, layers=one.layers * config.n_layers)


def _leaf(weights: Any, found: Found, config: ModelConfig, dtype: str) -> Any:
    """One parameter: an Array, or a QuantizedArray."""
    info, shape, raw = found.info, found.info.shape, weights.raw(found.info.name)
    if found.part is not None:
        rows = _rows(raw.reshape(shape[0], -1), found.part, config)
        shape = (shape[0] // found.part.of, *shape[1:])
        raw = rows.reshape(math.prod(shape[:-1]), -1)
    if info.format == "f32":
        return from_array(_floats(raw).reshape(shape), -1)
    return _decoded(raw, info, shape, dtype, weights.path)


def _decoded(raw: np.ndarray, info: TensorInfo, shape: tuple[int, ...], dtype: str, path: Path) -> Any:
    """A parameter that is not float32 in its file."""
    from nums_core.llm.weights import formats

    if info.format not in formats.BLOCK:
        raise ModelFileError(f"{path}: tensor {info.name!r} is of format {info.format}, which is not decoded; use a "
                             f"model in one of {', '.join(formats.BLOCK)}")
    if len(shape) == 2 and dtype == "keep":
        from nums_core.nn.quantized import QuantizedArray

        return QuantizedArray(from_array(raw, -1), info.format, shape)
    return from_array(formats.dequantize(raw, info.format, shape[-1]).reshape(shape), -1)


def _floats(raw: np.ndarray) -> np.ndarray:
    """Bytes as float32; a view where they lie at multiples of four."""
    flat = raw.reshape(-1)
    aligned = flat.ctypes.data % 4 == 0
    return (flat if aligned else flat.copy()).view("<f4")


def _rows(raw: np.ndarray, part: Part, config: ModelConfig) -> np.ndarray:
    """The rows of one part of a tensor; a view where they are neighbours in the file."""
    if not part.by_head:
        n = len(raw) // part.of
        return raw[part.index * n:(part.index + 1) * n]
    packed = raw.reshape(config.n_heads, part.of, -1, raw.shape[1])
    return np.ascontiguousarray(packed[:, part.index]).reshape(-1, raw.shape[1])
