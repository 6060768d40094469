"""Makes small GGUF files with random weights: real models to llama.cpp, of a few ten kilobytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HERMES = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}\n"
    'Answer with <tool_call>{"name": …, "arguments": …}</tool_call><|im_end|>\n{% endif %}' + CHATML
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    names = {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    return [names[b] for b in range(256)]


def tokens_and_types(extra: int = 0, special: list[str] = SPECIAL) -> tuple[list[str], list[int], list[str]]:
    """Tokens, types and merges of a byte-level BPE: 256 bytes, `extra` longer words, specials."""
    alphabet = _byte_alphabet()
    tokens, merges, known = list(alphabet), [], set(alphabet)
    frontier = [a for a in alphabet if a.isascii() and a.isalnum()]
    letters = list(frontier)
    while len(tokens) < 256 + extra:
        grown = []
        for stem in frontier:
            for letter in letters:
                word = stem + letter
                if len(tokens) >= 256 + extra:
                    break
                if word not in known:
                    known.add(word)
                    tokens.append(word)
                    merges.append(f"{stem} {letter}")
                    grown.append(word)
        frontier = grown
    types = [int(gguf.TokenType.NORMAL)] * len(tokens) + [int(gguf.TokenType.CONTROL)] * 2
    types += [int(gguf.TokenType.USER_DEFINED)] * (len(special) - 2)
    return tokens + special, types, merges or ["a b"]


def write(
    path: Path,
    *,
    template: str | None = HERMES,
    extra_tokens: int = 0,
    context: int = 2048,
    width: int = 32,
    layers: int = 1,
    seed: int = 1,
    special: list[str] = SPECIAL,
    always: int | None = None,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write a llama model. `always` is the token that it likes best, whatever it has read."""
    rng = np.random.default_rng(seed)
    tokens, types, merges = tokens_and_types(extra_tokens, special)
    heads, inner = 2, width * 2
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    for key, value in (metadata or {}).items():
        writer.add_string(key, value)

    def weights(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    output = weights(len(tokens), width)
    # With all embeddings on one side, what reaches the output is too, and only this token's row points there.
    calm = np.float32(1)
    embedding = weights(len(tokens), width)
    if always is not None:
        embedding = np.abs(embedding) + 1
        calm = np.float32(0.01)
        output[always] = 3.0
    writer.add_tensor("token_embd.weight", embedding)
    for i in range(layers):
        ones = np.ones(width, np.float32)
        writer.add_tensor(f"blk.{i}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"blk.{i}.{name}.weight", weights(width, width) * calm)
        writer.add_tensor(f"blk.{i}.ffn_gate.weight", weights(inner, width))
        writer.add_tensor(f"blk.{i}.ffn_up.weight", weights(inner, width))
        writer.add_tensor(f"blk.{i}.ffn_down.weight", weights(width, inner) * calm)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", output)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tagger(
    path: Path,
    labels: list[str],
    tags: list[str],
    *,
    width: int = 32,
    context: int = 64,
    seed: int = 1,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write a BERT of one layer with heads, as the built-in model is one."""
    rng = np.random.default_rng(seed)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[call2]", "[call3]"]
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    tokens = [*special, *(f"\u2581{letter}" for letter in letters), *letters]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.NONE)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL] * len(special) + [gguf.TokenType.NORMAL] * (len(tokens) - len(special))
    writer.add_token_types(kinds)
    writer.add_token_type_count(1)
    for add, at in ((writer.add_pad_token_id, 0), (writer.add_unk_token_id, 1), (writer.add_bos_token_id, 2)):
        add(at)
    writer.add_sep_token_id(3)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)

    def weights(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    ours = {
        "clawos.dialect": "clawos-tags-1",
        "clawos.labels": labels,
        "clawos.tags": tags,
        "clawos.head.calls": weights(len(labels) * (width + 1)).tolist(),
        "clawos.head.tags": weights(len(tags) * (width + 1)).tolist(),
        **(metadata or {}),
    }
    for key, value in ours.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_string(key, value)
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    writer.add_tensor("token_embd.weight", weights(len(tokens), width))
    writer.add_tensor("token_types.weight", weights(1, width))
    writer.add_tensor("position_embd.weight", weights(context, width))
    shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (width, width))
    shapes |= {"ffn_up": (2 * width, width), "ffn_down": (width, 2 * width)}
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", weights(*shape))
        writer.add_tensor(f"blk.0.{name}.bias", np.zeros(shape[0], np.float32))
    for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        writer.add_tensor(f"{name}.weight", ones)
        writer.add_tensor(f"{name}.bias", zeros)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
