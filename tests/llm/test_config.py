"""Configurations of Hugging Face folders and GGUF files."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from nums_core.errors import ModelFileError
from nums_core.llm.config import HF_DEFAULTS, ModelConfig, from_gguf, from_huggingface
from nums_core.llm.weights.mapped import TensorInfo

SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 100}


def hf(kind, **settings):
    return from_huggingface({"model_type": kind, **SMALL, **settings})


@pytest.mark.parametrize("kind", HF_DEFAULTS)
def test_what_a_file_leaves_out_has_the_defaults_of_its_class(kind):
    c = from_huggingface({"model_type": kind})
    assert c.vocab_size == HF_DEFAULTS[kind]["vocab_size"] and c.head_dim == c.hidden_size // c.n_heads
    assert hash(c) == hash(from_huggingface({"model_type": kind}))


def test_llama():
    c = hf("llama", num_key_value_heads=2, rope_theta=5e5, tie_word_embeddings=True, eos_token_id=[2, 7])
    assert (c.family, c.n_kv_heads, c.head_dim, c.rotary_dim, c.rope_base) == ("llama", 2, 16, 16, 5e5)
    assert c.tie_embeddings and c.window is None and c.eos_ids == (2, 7) and c.bos_id == 1
    assert not (c.qkv_bias or c.out_bias or c.mlp_bias or c.rope_interleaved)
    assert hf("llama", num_key_value_heads=None).n_kv_heads == 4
    biased = hf("llama", attention_bias=True, mlp_bias=True)
    assert biased.qkv_bias and biased.out_bias and biased.mlp_bias


def test_qwen2_has_biases_on_q_k_and_v_only():
    c = hf("qwen2", num_key_value_heads=4)
    assert c.qkv_bias and not c.out_bias and not c.mlp_bias and c.window is None
    assert hf("qwen2", num_key_value_heads=4, use_sliding_window=True, max_window_layers=0).window == 4096


def test_mistral_sees_a_window():
    assert hf("mistral", num_key_value_heads=2).window == 4096
    assert hf("mistral", num_key_value_heads=2, sliding_window=None).window is None


def test_opt():
    c = hf("opt", ffn_dim=128)
    assert c.tie_embeddings and c.rotary_dim == 0 and c.activation == "relu" and c.pre_norm and c.final_norm
    c = hf("opt", ffn_dim=128, do_layer_norm_before=False, word_embed_proj_dim=32)
    assert not c.pre_norm and not c.final_norm and c.embedding_size == 32
    assert not hf("opt", ffn_dim=128, enable_bias=False).mlp_bias


def test_gpt_neox_turns_part_of_a_head():
    assert hf("gpt_neox").rotary_dim == 4 and hf("gpt_neox").parallel_residual
    c = hf("gpt_neox", rotary_pct=0.5, rotary_emb_base=1e5, use_parallel_residual=False)
    assert (c.rotary_dim, c.rope_base, c.parallel_residual) == (8, 1e5, False)
    newer = hf("gpt_neox", rope_parameters={"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.5})
    assert (newer.rotary_dim, newer.rope_base) == (8, 1e5)


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize("spelling", [
    {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
    {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3}},
])
def test_rotary_scaling_in_all_spellings(spelling):
    c = hf("llama", **spelling)
    assert c.rope_base == 5e5
    assert c.rope_scaling == (("rope_type", "llama3"), ("factor", 8.0), ("low_freq_factor", 1.0), ("high_freq_factor", 4.0),
                              ("original_max_position_embeddings", 8192))
    assert hf("llama", rope_scaling={"type": "linear", "factor": 2}).rope_scaling == (("rope_type", "linear"), ("factor", 2.0))


@pytest.mark.parametrize(("settings", "message"), [
    ({"model_type": "mamba"}, "'mamba' is not implemented; models of type llama"),
    ({"model_type": None}, "None is not implemented"),
    ({"model_type": ["llama"]}, "is not implemented"),
    ({"quantization_config": {"bits": 4}}, "a GGUF file of it"),
    ({"num_attention_heads": 0}, "correct the file"),
    ({"num_attention_heads": "4"}, "correct the file"),
    ({"num_hidden_layers": 10**9}, "n_layers is 1000000000"),
    ({"num_hidden_layers": 5000}, "more than 1024 are not believed"),
    ({"vocab_size": -1}, "vocab_size is -1"),
    ({"vocab_size": None}, "vocab_size is None"),
    ({"num_key_value_heads": 3}, "must divide"),
    ({"head_dim": 15}, "rotary_dim is 15; it must be even"),
    ({"hidden_act": "mish"}, "activation 'mish' is not implemented"),
    ({"rms_norm_eps": 0}, "positive number"),
    ({"rope_theta": "big"}, "positive number"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "'yarn' is not implemented; default, linear and llama3"),
    ({"rope_scaling": {"rope_type": "linear"}}, "'factor' is missing"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factors must be positive"),
    ({"rope_scaling": 3}, "correct the file"),
    ({"eos_token_id": "</s>"}, "id of a token"),
    ({"tie_word_embeddings": 1}, "true or false"),
    ({"model_type": "mistral", "sliding_window": 0, "num_key_value_heads": 4}, "window is 0"),
    ({"model_type": "qwen2", "num_key_value_heads": 4, "use_sliding_window": True}, "set use_sliding_window to false"),
    ({"model_type": "opt", "layer_norm_elementwise_affine": False}, "without weights"),
])
def test_what_is_wrong_or_not_implemented_is_named(settings, message):
    with pytest.raises(ModelFileError, match=f"config.json: .*{message}"):
        from_huggingface({"model_type": "llama", **SMALL, **settings})


def test_a_folder_takes_the_ends_of_both_files(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **SMALL}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 2]}))
    assert ModelConfig.from_path(tmp_path).eos_ids == (9, 2)


@pytest.mark.parametrize(("text", "message"), [("{", "no valid JSON"), ("[]", "must hold a JSON object")])
def test_a_damaged_config_is_named(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=rf"config\.json: {message}"):
        ModelConfig.from_path(tmp_path)


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(ModelFileError, match=r"config\.json: cannot be read.*beside"):
        ModelConfig.from_path(tmp_path)


def test_a_folder_of_gguf_files(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match=r"pass the path of one, as .*model\.gguf"):
        ModelConfig.from_path(tmp_path)


# -- GGUF -------------------------------------------------------------------------------------------------------------

KEYS = {"context_length": 128, "embedding_length": 64, "block_count": 2, "feed_forward_length": 96, "attention.head_count": 4,
        "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5, "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": 16}


def gguf(arch="llama", tensors=(), factors=None, split=1, **changes):
    metadata = {"general.architecture": arch, "split.count": split, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
                **{f"{arch}.{k}": v for k, v in {**KEYS, **changes}.items() if v is not None}}
    found = {"token_embd.weight": TensorInfo("token_embd.weight", "f32", (100, 64), 0, 0), **dict.fromkeys(tensors)}
    if factors is not None:
        found["rope_freqs.weight"] = None
    return from_gguf(SimpleNamespace(path="m.gguf", metadata=metadata, tensors=found, array=lambda name: factors))


def test_gguf_llama():
    c = gguf()
    assert (c.family, c.vocab_size, c.n_kv_heads, c.head_dim, c.max_positions) == ("llama", 100, 2, 16, 128)
    assert c.rope_interleaved and c.tie_embeddings and c.bos_id == 1 and c.eos_ids == (2,)
    assert not gguf(tensors=["output.weight"]).tie_embeddings
    assert gguf(**{"attention.key_length": 32}).head_dim == 32


def test_gguf_rotary_scaling():
    assert gguf(**{"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}).rope_scaling == (
        ("rope_type", "linear"), ("factor", 4.0))
    assert gguf(factors=np.arange(1, 9, dtype="f4")).rope_scaling == (
        ("rope_type", "factors"), ("factors", (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)))
    with pytest.raises(ModelFileError, match="2 factors; 16 rotated elements need 8"):
        gguf(factors=np.float32([1, 2]))
    with pytest.raises(ModelFileError, match="'yarn' is not implemented"):
        gguf(**{"rope.scaling.type": "yarn"})


def test_gguf_qwen2_and_neox():
    c = gguf("qwen2", tensors=["blk.0.attn_q.bias"])
    assert c.family == "llama" and c.qkv_bias and not c.out_bias and not c.rope_interleaved
    c = gguf("gptneox", tensors=["blk.0.attn_qkv.bias", "blk.0.ffn_down.bias"], use_parallel_residual=False)
    assert c.family == "gpt_neox" and c.qkv_bias and c.mlp_bias and not c.parallel_residual and c.activation == "gelu"


@pytest.mark.parametrize(("changes", "message"), [
    ({"arch": "mamba"}, "'mamba' is not implemented; llama, qwen2, gptneox are"),
    ({"block_count": None}, "'block_count' is missing"),
    ({"split": 3}, "one of 3 parts of a model; join them"),
    ({"expert_count": 8}, "mixtures of experts"),
    ({"attention.head_count": 0}, "m.gguf"),
    ({"attention.head_count_kv": [2, 4]}, "n_kv_heads is"),
])
def test_gguf_errors(changes, message):
    with pytest.raises(ModelFileError, match=f"m.gguf: .*{message}|{message}"):
        gguf(**changes)
