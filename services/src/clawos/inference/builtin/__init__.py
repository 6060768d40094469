"""The language of the built-in model: what it tells apart in a request, and how that becomes tool calls.

The model itself is a GGUF file, run by llama.cpp. Nothing here guesses what a request means: `parse` expands
what the model found and may only refuse it.
"""

from clawos.inference.builtin.reading import Call, Reading, Request, Span
from clawos.inference.builtin.reply import Reply, parse
from clawos.inference.builtin.tool import ToolSpec

__all__ = ["Call", "Reading", "Reply", "Request", "Span", "ToolSpec", "parse"]
