"""Write trained weights as GGUF: python -m qa.model.export --run DIR [--out qa/model/builtin.gguf] [--type
q8_0|f16|f32]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType

from clawos.inference.builtin.dialect import DIALECT, END, USER
from qa.model.data import catalogue
from qa.model.net import Net, Shape
from qa.model.paths import MODEL
from qa.model.tokens import CONTROL, marks

# Ours -> llama.cpp's names.
NAMES = {
    "embed": "token_embd",
    "norm": "output_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
TYPES = {
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
}


def load(run: Path) -> tuple[Net, dict[str, object]]:
    """The network of a training run, in evaluation mode."""
    saved = torch.load(run / "weights.pt", weights_only=True)
    net = Net(Shape(**saved["shape"]))
    net.load_state_dict(saved["weights"])
    return net.eval(), saved


def tensor_name(name: str) -> str:
    """`blocks.3.q.weight` -> `blk.3.attn_q.weight`."""
    parts = name.split(".")
    if parts[0] == "blocks":
        return f"blk.{parts[1]}.{NAMES.get(parts[2], parts[2])}.weight"
    return f"{NAMES[parts[0]]}.weight"


def write(run: Path, out: Path, kind: str) -> None:
    net, saved = load(run)
    shape = net.shape
    writer = gguf.GGUFWriter(out, "llama")
    file_type, llama_type = TYPES[kind]
    writer.add_name("ClawOS built-in")
    writer.add_description("Turns one plain request into tool calls of ClawOS. See qa/model/CARD.md.")
    writer.add_file_type(llama_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_vocab_size(shape.vocab)
    writer.add_string("clawos.dialect", DIALECT)
    writer.add_array("clawos.tools", [tool.name for tool in catalogue()])
    writer.add_uint32("clawos.seed", int(str(saved["seed"])))
    writer.add_uint32("clawos.steps", int(str(saved["steps"])))
    vocabulary(writer, run / "tokenizer.json", shape.vocab)
    for name, weight in net.state_dict().items():
        data = weight.float().numpy()
        quantised = file_type if data.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(
            tensor_name(name), gguf.quantize(np.ascontiguousarray(data), quantised), raw_dtype=quantised
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def vocabulary(writer: gguf.GGUFWriter, path: Path, size: int) -> None:
    saved = json.loads(path.read_text())
    ids = saved["model"]["vocab"]
    pieces = sorted(ids, key=ids.__getitem__)
    if [ids[piece] for piece in pieces] != list(range(size)):
        raise SystemExit(f"{path}: expected {size} tokens without gaps, found {len(pieces)}")
    own = set(marks())
    kinds = [
        gguf.TokenType.CONTROL
        if piece in CONTROL
        else gguf.TokenType.USER_DEFINED
        if piece in own
        else gguf.TokenType.NORMAL
        for piece in pieces
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in saved["model"]["merges"]]
    )
    writer.add_bos_token_id(ids[USER])
    writer.add_eos_token_id(ids[END])
    writer.add_pad_token_id(ids["⟨pad⟩"])
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
