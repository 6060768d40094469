"""Directory changes by inotify."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from asyncinotify import Inotify, Mask

# One editor's save or one package's upgrade is a burst of events; they are answered together.
SETTLE_S = 0.05

_MASK = (
    Mask.CLOSE_WRITE
    | Mask.CREATE
    | Mask.MOVED_TO
    | Mask.MOVED_FROM
    | Mask.DELETE
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.ATTRIB
)


async def watch(directories: Sequence[Path]) -> AsyncGenerator[None]:
    """Yield once after each burst of changes. A directory that does not exist yet is waited for."""
    armed: dict[Path, tuple[int, int]] = {}
    dirty = asyncio.Event()
    with Inotify() as inotify:
        _arm(inotify, directories, armed)
        pump = asyncio.create_task(_pump(inotify, dirty))
        pump.add_done_callback(lambda _: dirty.set())
        try:
            while True:
                await dirty.wait()
                if pump.done():
                    pump.result()
                await asyncio.sleep(SETTLE_S)
                # Cleared before anybody looks: a change while they look is a new burst.
                dirty.clear()
                _arm(inotify, directories, armed)
                yield
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)


async def _pump(inotify: Inotify, dirty: asyncio.Event) -> None:
    while True:
        await inotify.get()
        dirty.set()


def _arm(inotify: Inotify, directories: Sequence[Path], armed: dict[Path, tuple[int, int]]) -> None:
    for directory in directories:
        # The parent is watched as well: it tells when the directory is made, or put in another's place.
        for place in (directory.parent, directory):
            try:
                found = place.stat()
                identity = (found.st_dev, found.st_ino)
                if armed.get(place) != identity:
                    inotify.add_watch(place, _MASK | Mask.ONLYDIR)
                    armed[place] = identity
            except OSError:
                armed.pop(place, None)
