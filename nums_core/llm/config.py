"""What a decoder is: its sizes and variants, read from a Hugging Face `config.json` or from GGUF metadata.

The two say the same things in other words. Both are translated into one `ModelConfig`, which is all that models, caches and
engines ask. What a file says that is not understood here (a rotary scaling, an activation, experts) is an error: a model
that runs and is subtly wrong is worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nums_core.errors import ModelFileError

if TYPE_CHECKING:
    from nums_core.llm.weights.gguf import GGUFFile

FAMILIES = ("llama", "opt", "gpt_neox")
ACTIVATIONS = {"silu": "silu", "swish": "silu", "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh",
               "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_tanh": "gelu_tanh"}
MAX_LAYERS, MAX_SIZE = 1024, 2**24  # far over any model; a hostile file must not make us build one of a billion layers

RopeScaling = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and variants of a decoder. Frozen and hashable: a static part of a model.

    Attributes
    ----------
    family : "llama", "opt" or "gpt_neox"
    vocab_size, max_positions : int, tokens
    hidden_size, intermediate_size, head_dim : int, elements
    n_layers, n_heads, n_kv_heads : int
        `n_kv_heads` divides `n_heads` (grouped queries).
    activation : "silu", "relu", "gelu" (with erf) or "gelu_tanh"
    tie_embeddings : bool
        The matrix of the logits is that of the embedding.
    rotary_dim : int, elements
        First elements of each head that are turned by their position; 0 where positions are learned.
    rope_base : float
    rope_scaling : tuple of (name, value), or None
        `("rope_type", "linear"), ("factor", 2.0)`, or "llama3" with factor, low_freq_factor, high_freq_factor and
        original_max_position_embeddings, or "factors" with the divisor of each frequency.
    rope_interleaved : bool
        Rotated pairs are neighbours (GGUF's order of the rows of LLaMA's q and k), not half a head apart.
    window : int, tokens, or None
        A query sees that many keys at most, its own among them (Mistral).
    qkv_bias, out_bias, mlp_bias : bool
    pre_norm, final_norm : bool
        OPT: norms stand before (else after) attention and MLP; one more stands before the logits.
    embedding_size : int, elements
        OPT: of the embedding, projected to `hidden_size` where they differ.
    parallel_residual : bool
        GPT-NeoX: attention and MLP read the same input, and both are added to it.
    bos_id : int or None
    eos_ids : tuple of int
    """

    family: str
    vocab_size: int
    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int
    norm_eps: float = 1e-5
    activation: str = "silu"
    tie_embeddings: bool = False
    rotary_dim: int = 0
    rope_base: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rope_interleaved: bool = False
    window: int | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    pre_norm: bool = True
    final_norm: bool = True
    embedding_size: int = 0
    parallel_residual: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.embedding_size:
            object.__setattr__(self, "embedding_size", self.hidden_size)
        problem = _problem(self)
        if problem:
            raise ValueError(problem)

    @classmethod
    def from_path(cls, path: str | Path) -> ModelConfig:
        """The configuration of a `.gguf` file, or of a Hugging Face folder.

        Raises
        ------
        ModelFileError
        """
        path = Path(path)
        if path.is_dir():
            return from_folder(path)
        from nums_core.llm.weights.gguf import GGUFFile

        return from_gguf(GGUFFile(path))


def _problem(c: ModelConfig) -> str | None:
    """What is wrong with a configuration, and the rule."""
    for f in fields(c):
        value = getattr(c, f.name)
        if f.type == "int" and (type(value) is not int or not 0 <= value <= MAX_SIZE):
            return f"{f.name} is {value!r}; it must be a whole number up to {MAX_SIZE}"
        if f.type == "bool" and type(value) is not bool:
            return f"{f.name} is {value!r}; it must be true or false"
        if f.type == "float" and not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            return f"{f.name} is {value!r}; it must be a positive number"
    positive = ("vocab_size", "hidden_size", "n_layers", "n_heads", "n_kv_heads", "head_dim", "intermediate_size",
                "max_positions")
    zero = next((name for name in positive if getattr(c, name) < 1), None)
    if zero:
        return f"{zero} is {getattr(c, zero)}; it must be at least 1"
    if c.n_layers > MAX_LAYERS:
        return f"n_layers is {c.n_layers}; more than {MAX_LAYERS} are not believed"
    if c.family not in FAMILIES:
        return f"family is {c.family!r}; it must be one of {', '.join(FAMILIES)}"
    if c.n_heads % c.n_kv_heads:
        return f"{c.n_heads} query heads cannot share {c.n_kv_heads} key-value heads; the second must divide the first"
    if c.rotary_dim % 2 or c.rotary_dim > c.head_dim:
        return f"rotary_dim is {c.rotary_dim}; it must be even and at most the {c.head_dim} elements of a head"
    scaling = dict(c.rope_scaling or ())
    factors = scaling.get("factors", (1.0,) * (c.rotary_dim // 2))
    if not all(math.isfinite(v) and v > 0 for v in (*factors, *(v for v in scaling.values() if isinstance(v, (int, float))))):
        return f"rotary scaling is {c.rope_scaling!r}; its factors must be positive numbers"
    if len(factors) != c.rotary_dim // 2:
        return f"rotary scaling has {len(factors)} factors; {c.rotary_dim} rotated elements need {c.rotary_dim // 2}"
    if c.activation not in ("silu", "relu", "gelu", "gelu_tanh"):
        return f"activation is {c.activation!r}; it must be silu, relu, gelu or gelu_tanh"
    if c.window is not None and (type(c.window) is not int or c.window < 1):
        return f"window is {c.window!r}; it must be a positive number of tokens, or None"
    return None


# -- Hugging Face -----------------------------------------------------------------------------------------------------

# A config.json leaves out what equals the defaults of its class in transformers, so these are part of the format.
_ROTARY = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False,
           "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}
HF_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _ROTARY | {"vocab_size": 32000, "intermediate_size": 11008, "bos_token_id": 1, "eos_token_id": 2},
    "mistral": _ROTARY | {"vocab_size": 32000, "intermediate_size": 14336, "num_key_value_heads": 8, "bos_token_id": 1,
                          "max_position_embeddings": 131072, "sliding_window": 4096, "eos_token_id": 2},
    "qwen2": _ROTARY | {"vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32,
                        "max_position_embeddings": 32768, "sliding_window": 4096, "max_window_layers": 28},
    "opt": {"vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072, "num_attention_heads": 12,
            "max_position_embeddings": 2048, "activation_function": "relu", "tie_word_embeddings": True, "bos_token_id": 2,
            "eos_token_id": 2},
    "gpt_neox": {"vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
                 "intermediate_size": 24576, "max_position_embeddings": 2048, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
                 "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 2},
}


def from_folder(path: Path) -> ModelConfig:
    """The configuration of a Hugging Face folder; the ends of a text also from its `generation_config.json`.

    Raises
    ------
    ModelFileError
    """
    from nums_core.llm.weights.safetensors import read_json

    single = next(path.glob("*.gguf"), None) if not (path / "config.json").exists() else None
    if single is not None:
        raise ModelFileError(f"{path}: no config.json, but GGUF files, which need none; pass the path of one, as {single}")
    found = read_json(path / "config.json")
    generation = path / "generation_config.json"
    if generation.is_file():
        ends = _ids(found.get("eos_token_id")) + _ids(read_json(generation).get("eos_token_id"))
        found = found | ({"eos_token_id": list(dict.fromkeys(ends))} if ends else {})
    return from_huggingface(found, path / "config.json")


def from_huggingface(found: Mapping[str, Any], where: str | Path = "config.json") -> ModelConfig:
    """The configuration that the contents of a `config.json` describe; `where` names it in messages.

    Raises
    ------
    ModelFileError
        Another architecture, or a variant that is not implemented.
    """
    kind = found.get("model_type")
    if not isinstance(kind, str) or kind not in HF_DEFAULTS:
        raise ModelFileError(f"{where}: model_type {kind!r} is not implemented; models of type {', '.join(HF_DEFAULTS)} are")
    if found.get("quantization_config"):
        raise ModelFileError(f"{where}: its weights are quantised in a way that is not read here; use the unquantised "
                             "model, or a GGUF file of it")
    read = {"opt": _opt, "gpt_neox": _neox}.get(kind, _llama)
    return _checked(where, lambda: read(kind, HF_DEFAULTS[kind] | dict(found)))


def _checked(where: Any, read: Callable[[], ModelConfig]) -> ModelConfig:
    """What `read` makes; what it finds wrong is the file's fault."""
    try:
        return read()
    except (ValueError, TypeError, KeyError, ZeroDivisionError, OverflowError) as error:
        if isinstance(error, ModelFileError):
            raise
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ModelFileError(f"{where}: {reason}; correct the file, or download it again") from None


def _sizes(c: Mapping[str, Any]) -> dict[str, Any]:
    """What all families of Hugging Face's have under the same names."""
    heads = c["num_attention_heads"]
    return {"vocab_size": c["vocab_size"], "hidden_size": c["hidden_size"], "n_layers": c["num_hidden_layers"],
            "n_heads": heads, "n_kv_heads": _given(c, "num_key_value_heads", heads),
            "head_dim": _given(c, "head_dim", c["hidden_size"] // heads), "max_positions": c["max_position_embeddings"],
            "tie_embeddings": c["tie_word_embeddings"], "bos_id": next(iter(_ids(c.get("bos_token_id"))), None),
            "eos_ids": _ids(c.get("eos_token_id"))}


def _given(c: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """A setting that may be left out or null."""
    return otherwise if c.get(name) is None else c[name]


def _ids(value: Any) -> tuple[int, ...]:
    """A token or a list of tokens as a tuple."""
    out = tuple(value) if isinstance(value, (list, tuple)) else () if value is None else (value,)
    if not all(type(t) is int for t in out):
        raise ValueError(f"{value!r} must be the id of a token, or a list of them")
    return out


def _activation(name: Any) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not implemented; {', '.join(ACTIVATIONS)} are")
    return ACTIVATIONS[name]


def _llama(kind: str, c: Mapping[str, Any]) -> ModelConfig:
    sizes = _sizes(c)
    base, scaling, part = _rope(c, sizes["max_positions"])
    qwen = kind == "qwen2"
    bias = bool(c.get("attention_bias", False))
    return ModelConfig("llama", **sizes, intermediate_size=c["intermediate_size"], norm_eps=c["rms_norm_eps"],
                       activation=_activation(c["hidden_act"]), rotary_dim=int(sizes["head_dim"] * part), rope_base=base,
                       rope_scaling=scaling, window=_window(kind, c), qkv_bias=bias or qwen, out_bias=bias and not qwen,
                       mlp_bias=bool(c.get("mlp_bias", False)))


def _window(kind: str, c: Mapping[str, Any]) -> int | None:
    """How far back queries see, in tokens; None where they see all."""
    off = kind == "llama" or (kind == "qwen2" and not c.get("use_sliding_window", False))
    if off or c.get("sliding_window") is None:
        return None
    if (kind == "qwen2" and c["max_window_layers"] > 0) or len(set(c.get("layer_types") or [0])) > 1:
        raise ValueError("layers with and without a sliding window in one model are not implemented; set "
                         "use_sliding_window to false for texts shorter than the window")
    return c["sliding_window"]


def _rope(c: Mapping[str, Any], max_positions: int) -> tuple[float, RopeScaling | None, float]:
    """Base, scaling and rotated part of a head, in the older spelling (rope_theta, rope_scaling) or the newer one."""
    p = (c.get("rope_scaling") or {}) | (c.get("rope_parameters") or {})
    base = p.get("rope_theta", c.get("rope_theta", c.get("rotary_emb_base", 10_000.0)))
    part = p.get("partial_rotary_factor", c.get("partial_rotary_factor", c.get("rotary_pct", 1.0)))
    kind = p.get("rope_type", p.get("type", "default"))
    if kind == "default":
        return base, None, part
    if kind == "linear":
        return base, (("rope_type", kind), ("factor", float(p["factor"]))), part
    if kind == "llama3":
        known = [(name, float(p[name])) for name in ("factor", "low_freq_factor", "high_freq_factor")]
        original = int(p.get("original_max_position_embeddings", max_positions))
        return base, (("rope_type", kind), *known, ("original_max_position_embeddings", original)), part
    raise ValueError(f"rotary scaling {kind!r} is not implemented; default, linear and llama3 are")


def _opt(kind: str, c: Mapping[str, Any]) -> ModelConfig:
    if not c.get("layer_norm_elementwise_affine", True):
        raise ValueError("layer norms without weights are not implemented")
    bias, before = bool(c.get("enable_bias", True)), bool(c.get("do_layer_norm_before", True))
    return ModelConfig("opt", **_sizes(c), intermediate_size=c["ffn_dim"], activation=_activation(c["activation_function"]),
                       qkv_bias=bias, out_bias=bias, mlp_bias=bias, pre_norm=before,
                       final_norm=before and not c.get("_remove_final_layer_norm", False),
                       embedding_size=_given(c, "word_embed_proj_dim", c["hidden_size"]))


def _neox(kind: str, c: Mapping[str, Any]) -> ModelConfig:
    sizes = _sizes(c)
    base, scaling, part = _rope({"rotary_pct": 0.25} | dict(c), sizes["max_positions"])
    bias = bool(c.get("attention_bias", True))
    return ModelConfig("gpt_neox", **sizes, intermediate_size=c["intermediate_size"], norm_eps=c["layer_norm_eps"],
                       activation=_activation(c["hidden_act"]), rotary_dim=int(sizes["head_dim"] * part), rope_base=base,
                       rope_scaling=scaling, qkv_bias=bias, out_bias=bias, mlp_bias=True,
                       parallel_residual=bool(c.get("use_parallel_residual", True)))


# -- GGUF -------------------------------------------------------------------------------------------------------------

GGUF_FAMILIES = {"llama": "llama", "qwen2": "llama", "gptneox": "gpt_neox"}


def from_gguf(file: GGUFFile) -> ModelConfig:
    """The configuration of a GGUF file. What its metadata leave open (biases, tied embeddings) its tensors tell.

    Raises
    ------
    ModelFileError
        Another architecture, or a variant that is not implemented.
    """
    arch = file.metadata.get("general.architecture")
    if not isinstance(arch, str) or arch not in GGUF_FAMILIES:
        raise ModelFileError(f"{file.path}: architecture {arch!r} is not implemented; {', '.join(GGUF_FAMILIES)} are. Other "
                             "models can be run where they are one of these under another name: convert them as such")
    n_files = file.metadata.get("split.count", 1)
    if n_files != 1:
        raise ModelFileError(f"{file.path}: one of {n_files} parts of a model; join them first: llama-gguf-split --merge "
                             "FIRST_PART MODEL.gguf")
    of_arch = {k[len(arch) + 1:]: v for k, v in file.metadata.items() if k.startswith(arch + ".")}
    return _checked(file.path, lambda: _gguf(arch, of_arch, file))


def _gguf(arch: str, m: Mapping[str, Any], file: GGUFFile) -> ModelConfig:
    if m.get("expert_count"):
        raise ValueError("mixtures of experts are not implemented; use a dense model")
    llama, has = GGUF_FAMILIES[arch] == "llama", file.tensors.__contains__
    embedding = file.tensors.get("token_embd.weight")
    heads, tokens = m["attention.head_count"], file.metadata
    head_dim = m.get("attention.key_length", m["embedding_length"] // heads)
    base, scaling = _gguf_rope(m, file)
    return ModelConfig(
        GGUF_FAMILIES[arch], vocab_size=embedding.shape[0] if embedding else m["vocab_size"],
        hidden_size=m["embedding_length"], n_layers=m["block_count"], n_heads=heads,
        n_kv_heads=m.get("attention.head_count_kv", heads), head_dim=head_dim, intermediate_size=m["feed_forward_length"],
        max_positions=m["context_length"],
        norm_eps=m["attention.layer_norm_rms_epsilon" if llama else "attention.layer_norm_epsilon"],
        activation="silu" if llama else "gelu", tie_embeddings=not has("output.weight"),
        rotary_dim=m.get("rope.dimension_count", head_dim), rope_base=base, rope_scaling=scaling,
        # llama.cpp reorders the rows of LLaMA's q and k so that the two elements of a pair are neighbours.
        rope_interleaved=arch == "llama", window=m.get("attention.sliding_window") or None,
        qkv_bias=has("blk.0.attn_q.bias") or has("blk.0.attn_qkv.bias"), out_bias=has("blk.0.attn_output.bias"),
        mlp_bias=has("blk.0.ffn_down.bias"), parallel_residual=not llama and m.get("use_parallel_residual", True),
        bos_id=next(iter(_ids(tokens.get("tokenizer.ggml.bos_token_id"))), None),
        eos_ids=tuple(dict.fromkeys(_ids(tokens.get("tokenizer.ggml.eos_token_id"))
                                    + _ids(tokens.get("tokenizer.ggml.eot_token_id")))))


def _gguf_rope(m: Mapping[str, Any], file: GGUFFile) -> tuple[float, RopeScaling | None]:
    base = m.get("rope.freq_base", 10_000.0)
    if "rope_freqs.weight" in file.tensors:  # llama.cpp writes llama3's scaling out as one divisor a frequency
        return base, (("rope_type", "factors"), ("factors", tuple(file.array("rope_freqs.weight").ravel().tolist())))
    kind = m.get("rope.scaling.type", "linear" if "rope.scale_linear" in m else "none")
    if kind == "none":
        return base, None
    if kind == "linear":
        return base, (("rope_type", kind), ("factor", float(m.get("rope.scaling.factor", m.get("rope.scale_linear")))))
    raise ValueError(f"rotary scaling {kind!r} is not implemented; none and linear are")
