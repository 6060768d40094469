"""From the worker thread to the stream: events go in batches, so that the loop wakes rarely beside it."""

from __future__ import annotations

import asyncio
import threading

from clawos.core.stream import Writer
from clawos.inference.chat import Event, TextEvent

_BATCH_S = 0.02


class Outbox:
    """Events on their way out. What waits is bounded: an answer is no longer than the context."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: list[Event] = []
        self._woken = False
        self._wake = asyncio.Event()
        self._closed = False

    def emit(self, event: Event) -> None:
        """Take an event, from any thread; pieces of text that still wait become one."""
        with self._lock:
            last = self._waiting[-1] if self._waiting else None
            if isinstance(event, TextEvent) and isinstance(last, TextEvent):
                self._waiting[-1] = TextEvent(last.text + event.text)
            else:
                self._waiting.append(event)
            if self._woken:
                return
            self._woken = True
        self._loop.call_soon_threadsafe(self._wake.set)

    async def pump(self) -> None:
        """Send until `close`. Raises StreamClosed when the reader is gone."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            with self._lock:
                batch, self._waiting = self._waiting, []
                self._woken = self._closed
            for event in batch:
                await self._writer.send_json(event)
            if self._closed and not batch:
                return
            if self._closed:
                self._wake.set()
            else:
                await asyncio.sleep(_BATCH_S)

    def close(self) -> None:
        """Nothing more will come. In the event loop."""
        self._closed = True
        self._wake.set()
