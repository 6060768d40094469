"""The dialect of the built-in model: how a request is put to it, and how its answer becomes tool calls.

The model itself is a GGUF file, run by llama.cpp. Nothing here guesses what a request means: `parse`
expands what the model wrote and may only refuse it.
"""

from clawos.inference.builtin.dialect import DIALECT, MAX_TOKENS, STOP, grammar, prompt, request
from clawos.inference.builtin.reply import Call, Reply, parse
from clawos.inference.builtin.tool import ToolSpec

__all__ = [
    "DIALECT",
    "MAX_TOKENS",
    "STOP",
    "Call",
    "Reply",
    "ToolSpec",
    "grammar",
    "parse",
    "prompt",
    "request",
]
