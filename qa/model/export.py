"""Write trained weights as GGUF: python -m qa.model.export --run DIR [--out FILE] [--type q8_0|f16|f32]"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType

from clawos.inference.builtin.prompt import CLS, DIALECT, PAD, SEP, UNK
from qa.model.net import EPSILON, Net, Shape
from qa.model.paths import MODEL
from qa.model.tokens import SPECIAL

# Ours -> llama.cpp's names.
NAMES = {
    "words": "token_embd",
    "positions": "position_embd",
    "norm": "token_embd_norm",
    "out": "attn_output",
    "norm1": "attn_output_norm",
    "up": "ffn_up",
    "down": "ffn_down",
    "norm2": "layer_output_norm",
}
TYPES = {
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
}


def load(run: Path) -> tuple[Net, dict[str, Any]]:
    """The network of a training run, in evaluation mode."""
    saved: dict[str, Any] = torch.load(run / "weights.pt", weights_only=True)
    net = Net(Shape(**saved["shape"]), len(saved["labels"]), len(saved["tags"]))
    net.load_state_dict(saved["weights"])
    return net.eval(), saved


def tensors(net: Net) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """llama.cpp's names and the values; the heads are no tensors to it."""
    for name, value in net.state_dict().items():
        parts = name.split(".")
        data = value.float().numpy()
        if parts[0] in ("calls", "tags"):
            continue
        if name == "kind":
            yield "token_types.weight", data[None, :]
        elif parts[0] != "blocks":
            yield f"{NAMES[parts[0]]}.{parts[1]}", data
        elif parts[2] == "qkv":
            for letter, third in zip("qkv", np.split(data, 3), strict=True):
                yield f"blk.{parts[1]}.attn_{letter}.{parts[3]}", third
        else:
            yield f"blk.{parts[1]}.{NAMES[parts[2]]}.{parts[3]}", data


def write(run: Path, out: Path, kind: str) -> None:
    net, saved = load(run)
    shape = net.shape
    writer = gguf.GGUFWriter(out, "bert")
    file_type, llama_type = TYPES[kind]
    writer.add_name("ClawOS built-in")
    writer.add_description("Turns one plain request into tool calls of ClawOS. See qa/model/CARD.md.")
    writer.add_license("Apache-2.0")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "all-MiniLM-L6-v2")
    writer.add_base_model_organization(0, "sentence-transformers")
    writer.add_file_type(llama_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.NONE)
    writer.add_string("clawos.dialect", DIALECT)
    writer.add_array("clawos.labels", saved["labels"])
    writer.add_array("clawos.tags", saved["tags"])
    for name, head in (("calls", net.calls), ("tags", net.tags)):
        # A row for each label: its weights, then its bias.
        rows = torch.cat([head.weight, head.bias[:, None]], 1).detach().float()
        writer.add_array(f"clawos.head.{name}", rows.flatten().tolist())
    writer.add_uint32("clawos.seed", int(saved["seed"]))
    writer.add_uint32("clawos.steps", int(saved["steps"]))
    vocabulary(writer, saved["vocabulary"])
    for name, data in tensors(net):
        quantised = file_type if data.ndim > 1 and "token_types" not in name else GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(data), quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def vocabulary(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    """llama.cpp marks the beginning of a word, not its continuation."""
    pieces = [
        token if token in SPECIAL else token[2:] if token.startswith("##") and len(token) > 2 else f"▁{token}"
        for token in tokens
    ]
    writer.add_tokenizer_model("bert")
    writer.add_token_list(pieces)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_type_count(1)
    number = {token: i for i, token in enumerate(tokens)}
    writer.add_bos_token_id(number[CLS])
    writer.add_eos_token_id(number[SEP])
    writer.add_sep_token_id(number[SEP])
    writer.add_unk_token_id(number[UNK])
    writer.add_pad_token_id(number[PAD])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=MODEL)
    parser.add_argument("--type", choices=sorted(TYPES), default="q8_0")
    options = parser.parse_args()
    write(options.run, options.out, options.type)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
