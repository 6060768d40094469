"""How models open a tool call, by the words of their chat templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Marker:
    """One way to write calls: what opens one, what closes it, and what stands between."""

    opens: str
    closes: str
    shape: Literal["object", "array", "function"]
    arguments: str = "arguments"


# In the order of preference where a template mentions several.
MARKERS = (
    Marker("<tool_call>", "</tool_call>", "object"),  # Hermes, Qwen 2.5 and 3
    Marker("[TOOL_CALLS]", "", "array"),  # Mistral
    Marker("<function=", "</function>", "function"),  # Llama 3.1's custom calls, functionary
    Marker("<|python_tag|>", "", "object", "parameters"),  # Llama 3
)
# What we ask for in our own words where the template knows no tools.
DEFAULT = MARKERS[0]

# For a GGUF without a template of its own.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def markers_of(template: str) -> Sequence[Marker]:
    """The markers to watch for in the answers of a model with this template."""
    found = [marker for marker in MARKERS if marker.opens in template]
    if not found and "tools" not in template:
        return (DEFAULT,)
    if all(marker.arguments == "parameters" for marker in found):
        key = "parameters" if '"parameters"' in template or found else "arguments"
        found.append(Marker("", "", "object", key))
    return found
