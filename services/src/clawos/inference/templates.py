"""The service's end of the process that renders a chat template."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from clawos.core.parse import to_json_line
from clawos.inference import children
from clawos.inference.errors import ModelInvalid

# A prompt of MAX_TEXT characters, each escaped in JSON.
_MAX_LINE = 64 << 20


class Renderer:
    """Renders one model's template; its process starts at first use, and again after it had to be killed."""

    def __init__(self, model: str, template: str, bos: str, eos: str, timeout_s: float) -> None:
        self._model, self._timeout_s = model, timeout_s
        self._first = {"template": template, "bos": bos, "eos": eos}
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        """The prompt of a conversation. Raises ModelInvalid."""
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._ask({"messages": messages, "tools": tools})
            except (TimeoutError, OSError, ValueError):
                answer = {"error": f"it used up its time ({self._timeout_s:g} s) or memory"}
                await self._end()
            except BaseException:
                # Cancelled half way: the next answer on this pipe would be the last request's.
                await self._end()
                raise
        if "text" not in answer:
            raise ModelInvalid(
                f"the chat template of {self._model} failed: {answer['error']}", "use another model"
            )
        return answer["text"]

    async def _ask(self, request: dict[str, Any]) -> dict[str, str]:
        if self._process is None or self._process.returncode is not None:
            self._process = await children.start("clawos.inference.render", stdin=asyncio.subprocess.PIPE)
            assert self._process.stdin is not None
            self._process.stdin.write(to_json_line(self._first))
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(to_json_line(request))
        await process.stdin.drain()
        line = bytearray()
        while not line.endswith(b"\n"):
            part = await process.stdout.read(1 << 16)
            line += part
            if not part or len(line) > _MAX_LINE:
                raise ValueError
        return msgspec.json.decode(line, type=dict[str, str])

    async def _end(self) -> None:
        if self._process is not None:
            await children.end(self._process)
            self._process = None

    async def close(self) -> None:
        async with self._turn:
            await self._end()
