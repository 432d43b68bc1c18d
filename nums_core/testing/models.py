"""A tiny random language model with a tokenizer and a chat template, in Hugging Face's layout, for tests of what opens models.

Its tokens are the 256 bytes and two control tokens, so any text can be encoded; what it says makes no sense.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

VOCAB = 258  # bytes, <|start|>, <|end|>
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 32,
          "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
          "tie_word_embeddings": True, "bos_token_id": 256, "eos_token_id": 257}
TEMPLATE = ("{% for m in messages %}<|start|>{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|start|>assistant: {% endif %}")


def write_tiny_llama(folder: Path, seed: int = 0) -> Path:
    """Write config.json, model.safetensors and tokenizer files into `folder`, and return it."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(_weights(np.random.default_rng(seed)), folder / "model.safetensors")
    _tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": "<|start|>", "eos_token": "<|end|>", "chat_template": TEMPLATE}))
    return folder


def _weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    hidden, inner, kv = 32, 48, 16

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) * 0.2).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(VOCAB, hidden), "model.norm.weight": np.ones(hidden, np.float32)}
    for i in range(2):
        p = f"model.layers.{i}"
        for name, rows, columns in (("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv, hidden),
                                    ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, hidden),
                                    ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                                    ("mlp.down_proj", hidden, inner)):
            weights[f"{p}.{name}.weight"] = matrix(rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{p}.{name}.weight"] = np.ones(hidden, np.float32)
    return weights


def _tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: k for k, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ("<|start|>", "<|end|>")])
    return made
