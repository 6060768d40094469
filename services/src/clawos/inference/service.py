"""What the inference room does: chats in their order, and the models they run on."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clawos.core.errors import Busy, ClawError, Internal
from clawos.core.parse import to_json
from clawos.core.stream import StreamClosed, Writer
from clawos.inference.builtin.prompt import DIALECT
from clawos.inference.chat import DoneEvent, ErrorEvent, Tool, parse_request
from clawos.inference.config import Config
from clawos.inference.engine import Engine, Job
from clawos.inference.outbox import Outbox
from clawos.inference.ports import Peers
from clawos.inference.registry import Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chat:
    """A chat that was accepted and whose stream is not closed yet."""

    id: str
    uid: int
    model: str
    job: Job
    writer: Writer


class Service:
    """Runs one chat at a time; the others wait, up to `config.queue` of them."""

    def __init__(self, config: Config, registry: Registry, engine: Engine, peers: Peers) -> None:
        self._config, self._registry, self._engine, self._peers = config, registry, engine, peers
        self._turn = asyncio.Lock()
        self._chats: dict[str, Chat] = {}
        self._admitted = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def preload(self) -> None:
        """Load the model in use in the background: neither the start nor the first answer waits for it."""
        self._spawn(self._preload())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _preload(self) -> None:
        name = self._registry.active
        try:
            await self._registry.examine(name)
            async with self._turn:
                seconds = await self._engine.load(name, self._registry.path(name))
        except ClawError as error:
            log.warning("model %s: %s (%s)", name, error.message, error.hint, extra={"CLAWOS_MODEL": name})
        else:
            log.info("model %s is loaded, in %.2f s", name, seconds, extra={"CLAWOS_MODEL": name})

    async def chat(self, text: str, uid: int, unique_name: str) -> tuple[str, int]:
        """Accept a chat. Returns its id and the read end of its stream of events.

        Raises BadRequest, Busy, ModelMissing, ModelInvalid and GrammarInvalid here; what is found out only in
        the chat's turn comes as an `error` event before `done`.
        """
        request = parse_request(text)
        if self._admitted > self._config.queue:
            raise Busy(f"{self._admitted} chats are under way or wait", "try again in a moment")
        self._admitted += 1
        try:
            name = request.model or self._registry.active
            finding = await self._registry.examine(name)
            await asyncio.to_thread(_check_tools, finding.dialect, request.tools)
            fd, writer = await Writer.open()
        except BaseException:
            self._admitted -= 1
            raise
        chat = Chat(secrets.token_hex(8), uid, name, Job(request), writer)
        self._chats[chat.id] = chat
        self._spawn(self._serve(chat, unique_name))
        return chat.id, fd

    async def _serve(self, chat: Chat, unique_name: str) -> None:
        """One chat from its place in the queue to the end of its stream."""
        outbox = Outbox(chat.writer)
        loop = asyncio.get_running_loop()
        forget = self._peers.on_vanish(unique_name, chat.job.cancel)
        pump = loop.create_task(outbox.pump())
        gone = loop.create_task(_cancel_when_gone(chat))
        try:
            try:
                done = await self._in_turn(chat, outbox)
            finally:
                self._admitted -= 1
            outbox.emit(done)
            outbox.close()
            async with asyncio.timeout(self._config.drain_s):
                await pump
                await chat.writer.close()
        except (StreamClosed, TimeoutError):
            chat.job.cancel()
        finally:
            forget()
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)
            del self._chats[chat.id]
            chat.writer.abort()

    async def _in_turn(self, chat: Chat, outbox: Outbox) -> DoneEvent:
        if not await self._wait_for_turn(chat.job):
            return DoneEvent("cancelled", chat.model)
        try:
            load_s = await self._engine.load(chat.model, self._registry.path(chat.model))
            done = await self._engine.generate(chat.job, outbox.emit, load_s)
        except ClawError as error:
            outbox.emit(ErrorEvent.of(error))
            log.info("chat failed: %s", error.message, extra={"CLAWOS_CHAT": chat.id})
            return DoneEvent("stop", chat.model)
        except Exception:
            incident = secrets.token_hex(4)
            log.exception("incident %s in a chat", incident, extra={"CLAWOS_INCIDENT": incident})
            hint = f"see 'journalctl CLAWOS_INCIDENT={incident}'"
            outbox.emit(ErrorEvent.of(Internal("something went wrong inside Inference", hint)))
            return DoneEvent("stop", chat.model)
        finally:
            self._turn.release()
        log.info(
            "%s: %s, %d + %d tokens",
            done.model,
            done.finish,
            done.prompt_tokens,
            done.completion_tokens,
            extra={"CLAWOS_CHAT": chat.id, "CLAWOS_MODEL": done.model, "CLAWOS_SECONDS": done.completion_s},
        )
        return done

    async def _wait_for_turn(self, job: Job) -> bool:
        """Wait for the model, or for the cancel. Returns whether the turn is ours now."""
        loop = asyncio.get_running_loop()
        turn, cancelled = loop.create_task(self._turn.acquire()), loop.create_task(job.cancelled.wait())
        try:
            await asyncio.wait({turn, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if turn.done() and cancelled.done():
                self._turn.release()
            return turn.done() and not cancelled.done()
        finally:
            for task in (turn, cancelled):
                task.cancel()

    def cancel(self, chat_id: str, uid: int) -> None:
        """End a chat of this user, or of anybody for root. One that is over already is no error."""
        chat = self._chats.get(chat_id)
        if chat and uid in (0, chat.uid):
            chat.job.cancel()

    async def models(self) -> str:
        return to_json(await self._registry.list())

    async def use_model(self, name: str) -> None:
        """Load a model and make it the default; on any failure all stays as it was."""
        await self._registry.examine(name)
        async with self._turn:
            await self._engine.load(name, self._registry.path(name))
            self._registry.choose(name)
        log.info("model %s is in use", name, extra={"CLAWOS_MODEL": name})

    async def add_model(self, name: str, fd: int) -> None:
        await self._registry.add(name, fd)
        log.info("model %s was added", name, extra={"CLAWOS_MODEL": name})

    async def remove_model(self, name: str) -> None:
        async with self._turn:
            self._registry.remove(name)
            if self._engine.loaded and self._engine.loaded.name == name:
                await self._engine.unload()
        log.info("model %s was removed", name, extra={"CLAWOS_MODEL": name})

    async def status(self) -> str:
        loaded = self._engine.loaded
        return to_json(
            {
                "model": self._registry.active,
                "loaded": loaded is not None,
                "dialect": loaded.speaker.name if loaded else None,
                "vocabulary": loaded.model.vocabulary if loaded else None,
                "context_tokens": loaded.speaker.context_tokens if loaded else None,
                "resident_bytes": _resident_bytes(),
                "cpu_variant": await asyncio.to_thread(lambda: self._engine.cpu_variant),
            }
        )

    async def close(self) -> None:
        """End all chats and give the memory back."""
        for chat in self._chats.values():
            chat.job.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=10)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._engine.close()


async def _cancel_when_gone(chat: Chat) -> None:
    await chat.writer.gone.wait()
    chat.job.cancel()


def _check_tools(dialect: str, tools: list[Tool]) -> None:
    """Refuse tools that the model's dialect cannot express, before it is touched. Raises GrammarInvalid."""
    if dialect == DIALECT:
        from clawos.inference.dialects.tags import tool_specs

        tool_specs(tools)
    elif tools:
        from clawos.inference.dialects import schema

        schema.check(tools)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
