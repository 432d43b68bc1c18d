"""Which tensor of a file is which parameter of a model: a table for each family and kind of file.

A row is `module path: name in the file`, both without their `.weight` or `.bias`, with `#` for the layer's number. Where one
matrix of the file holds several of the model, `Part` says which rows of it are meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nums_core.errors import ModelFileError
from nums_core.llm.config import ModelConfig
from nums_core.llm.weights.mapped import TensorInfo


@dataclass(frozen=True)
class Part:
    """The `index`-th of `of` equal parts of the rows of a tensor.

    `by_head`: the rows are (heads, of, head_dim), as GPT-NeoX packs q, k and v; otherwise (of, rows of a part)."""

    name: str
    index: int
    of: int
    by_head: bool


Row = str | Part
Table = Mapping[str, Row]


def _qkv(name: str, by_head: bool) -> dict[str, Row]:
    return {f"layers.#.attention.{x}": Part(name, i, 3, by_head) for i, x in enumerate("qkv")}


LLAMA_HF: Table = {
    "embedding": "model.embed_tokens",
    "layers.#.attention_norm": "model.layers.#.input_layernorm",
    "layers.#.attention.q": "model.layers.#.self_attn.q_proj",
    "layers.#.attention.k": "model.layers.#.self_attn.k_proj",
    "layers.#.attention.v": "model.layers.#.self_attn.v_proj",
    "layers.#.attention.out": "model.layers.#.self_attn.o_proj",
    "layers.#.mlp_norm": "model.layers.#.post_attention_layernorm",
    "layers.#.mlp.gate": "model.layers.#.mlp.gate_proj",
    "layers.#.mlp.up": "model.layers.#.mlp.up_proj",
    "layers.#.mlp.down": "model.layers.#.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
LLAMA_GGUF: Table = {
    "embedding": "token_embd",
    "layers.#.attention_norm": "blk.#.attn_norm",
    "layers.#.attention.q": "blk.#.attn_q",
    "layers.#.attention.k": "blk.#.attn_k",
    "layers.#.attention.v": "blk.#.attn_v",
    "layers.#.attention.out": "blk.#.attn_output",
    "layers.#.mlp_norm": "blk.#.ffn_norm",
    "layers.#.mlp.gate": "blk.#.ffn_gate",
    "layers.#.mlp.up": "blk.#.ffn_up",
    "layers.#.mlp.down": "blk.#.ffn_down",
    "norm": "output_norm",
    "head": "output",
}
OPT_HF: Table = {
    "embedding": "model.decoder.embed_tokens",
    "positions": "model.decoder.embed_positions",
    "project_in": "model.decoder.project_in",
    "layers.#.attention_norm": "model.decoder.layers.#.self_attn_layer_norm",
    "layers.#.attention.q": "model.decoder.layers.#.self_attn.q_proj",
    "layers.#.attention.k": "model.decoder.layers.#.self_attn.k_proj",
    "layers.#.attention.v": "model.decoder.layers.#.self_attn.v_proj",
    "layers.#.attention.out": "model.decoder.layers.#.self_attn.out_proj",
    "layers.#.mlp_norm": "model.decoder.layers.#.final_layer_norm",
    "layers.#.mlp.up": "model.decoder.layers.#.fc1",
    "layers.#.mlp.down": "model.decoder.layers.#.fc2",
    "norm": "model.decoder.final_layer_norm",
    "project_out": "model.decoder.project_out",
    "head": "lm_head",
}
NEOX_HF: Table = {
    "embedding": "gpt_neox.embed_in",
    "layers.#.attention_norm": "gpt_neox.layers.#.input_layernorm",
    **_qkv("gpt_neox.layers.#.attention.query_key_value", by_head=True),
    "layers.#.attention.out": "gpt_neox.layers.#.attention.dense",
    "layers.#.mlp_norm": "gpt_neox.layers.#.post_attention_layernorm",
    "layers.#.mlp.up": "gpt_neox.layers.#.mlp.dense_h_to_4h",
    "layers.#.mlp.down": "gpt_neox.layers.#.mlp.dense_4h_to_h",
    "norm": "gpt_neox.final_layer_norm",
    "head": "embed_out",
}
NEOX_GGUF: Table = {
    **{k: v for k, v in LLAMA_GGUF.items() if not k.endswith((".q", ".k", ".v", ".gate"))},
    **_qkv("blk.#.attn_qkv", by_head=False),
}
TABLES: Mapping[tuple[str, str], Table] = {
    ("llama", "hf"): LLAMA_HF, ("llama", "gguf"): LLAMA_GGUF, ("opt", "hf"): OPT_HF, ("gpt_neox", "hf"): NEOX_HF,
    ("gpt_neox", "gguf"): NEOX_GGUF,
}

# Tensors that files carry and models do not need: buffers of old exports, and what the configuration says already.
IGNORED = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|attention\.(masked_)?bias|decoder\.version)|rope_freqs\.weight")
SHOWN = 8  # of each kind of problem, in a message


@dataclass(frozen=True)
class Found:
    """The tensor of a file for one parameter; with `part`, some of its rows."""

    info: TensorInfo
    part: Part | None


def match(config: ModelConfig, kind: str, wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, TensorInfo],
          where: object) -> dict[str, Found]:
    """The tensor for every parameter.

    Parameters
    ----------
    kind : "hf" or "gguf"
    wanted : path of a parameter -> shape
    where : the file or folder, for messages

    Raises
    ------
    ModelFileError
        Tensors are missing, have other shapes, or belong to no parameter; all of them are listed.
    """
    table = TABLES[config.family, kind]
    tensors = {k: v for k, v in _with_base(table, tensors).items() if not IGNORED.fullmatch(k)}
    out: dict[str, Found] = {}
    missing, misshapen, used = [], [], set()
    for path, shape in wanted.items():
        name, part = _in_file(table, path)
        info = tensors.get(name)
        if info is None:
            missing.append(name)
            continue
        used.add(name)
        whole = shape if part is None else (shape[0] * part.of, *shape[1:])
        if info.shape != whole:
            misshapen.append(f"{name} is {info.shape} and should be {whole}")
        out[path] = Found(info, part)
    if config.tie_embeddings:  # some files hold the embedding twice
        used.add(_in_file(table, "head.weight")[0])
    _report(where, dict.fromkeys(missing), sorted(set(tensors) - used), dict.fromkeys(misshapen))
    return out


def _in_file(table: Table, path: str) -> tuple[str, Part | None]:
    """Name in the file of the parameter at `path`, and the part of that tensor."""
    stem, _, leaf = path.rpartition(".")
    number = re.search(r"\.(\d+)\.", stem + ".")
    row = table[re.sub(r"\.\d+(?=\.|$)", ".#", stem)]
    name = row.name if isinstance(row, Part) else row
    return f"{name.replace('#', number[1] if number else '#')}.{leaf}", row if isinstance(row, Part) else None


def _with_base(table: Table, tensors: Mapping[str, TensorInfo]) -> Mapping[str, TensorInfo]:
    """Tensors under their full names: a model saved without its head leaves the first word out (`model.`, `gpt_neox.`)."""
    first = table["embedding"]
    assert isinstance(first, str)
    base, dot, rest = first.partition(".")
    if not dot or f"{first}.weight" in tensors or f"{rest}.weight" not in tensors:
        return tensors
    heads = {str(table["head"])}
    return {name if name.rpartition(".")[0] in heads else f"{base}.{name}": info for name, info in tensors.items()}


def _report(where: object, missing: Iterable[str], unexpected: Iterable[str], misshapen: Iterable[str]) -> None:
    """One error for all that does not fit."""
    kinds = (("missing", missing), ("wrongly shaped", misshapen), ("of no use to this model", unexpected))
    lines = [f"{len(items)} {what}: {', '.join(items[:SHOWN])}{', ...' if len(items) > SHOWN else ''}"
             for what, items in ((w, list(i)) for w, i in kinds) if items]
    if lines:
        raise ModelFileError(f"{where}: the tensors are not those of its configuration; " + "; ".join(lines)
                             + "; take configuration and weights from the same model, whole")
