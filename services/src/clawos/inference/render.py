"""A process that renders one model's chat template.

The template is a program by whoever made the model. Jinja's sandbox keeps it from Python's objects, but not
from looping for ever or building a string that fills the memory: the limits of this process and its parent's
clock do.

First line in: {"template", "bos", "eos"}; then {"messages", "tools"} a line, answered {"text"} or {"error"}.
"""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from clawos.inference.children import confine

DATA_BYTES = 512 << 20
CPU_S = 3600
MAX_TEXT = 8 << 20


def _raise(message: object) -> NoReturn:
    raise TemplateError(str(message))


def _now(form: str) -> str:
    return datetime.datetime.now(datetime.UTC).strftime(form)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """As transformers does: no HTML escapes, and spaces after separators."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


class Renderer:
    """One template, ready to use."""

    def __init__(self, template: str, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_raise, strftime_now=_now, bos_token=bos, eos_token=eos)
        self._template = environment.from_string(template)

    def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        """The prompt; where the template knows no system message, the user's carries it."""
        try:
            return self._render(messages, tools)
        except TemplateError:
            merged = _merge_system(messages)
            if merged is None:
                raise
            return self._render(merged, tools)

    def _render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        text = self._template.render(messages=messages, tools=tools or None, add_generation_prompt=True)
        if len(text) > MAX_TEXT:
            raise TemplateError(f"the prompt has {len(text)} characters, more than {MAX_TEXT}")
        return text


def _merge_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    content = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{**messages[1], "content": content}, *messages[2:]]


def main() -> int:
    """Answer lines until the parent closes its end."""
    confine(data_bytes=DATA_BYTES, cpu_s=CPU_S)
    first = json.loads(sys.stdin.readline())
    renderer: Renderer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            renderer = renderer or Renderer(first["template"], first["bos"], first["eos"])
            answer = {"text": renderer.render(request["messages"], request["tools"])}
        # Whatever a template can bring Jinja or Python to raise: it is data that failed, not we.
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
