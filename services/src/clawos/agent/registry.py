"""The tools there are: manifests read from directories, found by name, read again when a file changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fastjsonschema

from clawos.agent.errors import ArgumentsInvalid, ToolUnknown
from clawos.agent.manifest import Manifest, parameters
from clawos.agent.ports import ToolOffer
from clawos.agent.watch import watch
from clawos.core.errors import ConfigInvalid
from clawos.core.parse import from_toml

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 65_536
MAX_TOOLS = 2_000


@dataclass(frozen=True)
class Tool:
    """A manifest and the check of its arguments, compiled when first needed (it costs about 1 ms)."""

    manifest: Manifest
    file: Path

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        return parameters(self.manifest)

    @cached_property
    def _validate(self) -> Any:
        return fastjsonschema.compile(self.parameters, use_default=False)

    def prepare(self) -> None:
        """Compile the check now."""
        _ = self._validate

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, valid under the schema. Raises ArgumentsInvalid."""
        try:
            self._validate(dict(arguments))
        except fastjsonschema.JsonSchemaValueException as error:
            text = error.message.replace("data.", "", 1)
            raise ArgumentsInvalid(
                f"{self.manifest.name}: {text}", "see '/tools'", tool=self.manifest.name
            ) from None
        properties = self.manifest.arguments.properties
        # JSON Schema counts 3.0 as an integer; on a command line it must read 3.
        return {k: int(v) if properties[k].kind == "integer" else v for k, v in arguments.items()}


@dataclass(frozen=True)
class Invalid:
    """A manifest that was not taken, and why."""

    file: Path
    error: str


_Stamp = tuple[int, int, int]


class Registry:
    """Tools by name. A file is named for its tool, so a bad file says which tool is missing.

    A later directory wins; if its file is bad the tool is not offered at all, because an administrator who
    tightens a tool must not get the looser one back by a slip of the pen.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = tuple(directories)
        self._read: dict[Path, tuple[_Stamp, Tool | Invalid]] = {}
        self._tools: dict[str, Tool] = {}
        self._invalid: tuple[Invalid, ...] = ()
        self._offers: tuple[ToolOffer, ...] = ()

    def __len__(self) -> int:
        return len(self._tools)

    def get(self, name: str) -> Tool:
        """Raises ToolUnknown."""
        tool = self._tools.get(name)
        if tool is None:
            raise ToolUnknown(
                f"there is no tool {name[:64]!r}", "see '/tools' for those there are", tool=name[:64]
            )
        return tool

    def all(self) -> tuple[Tool, ...]:
        """Every tool, by name."""
        return tuple(self._tools.values())

    @property
    def offers(self) -> tuple[ToolOffer, ...]:
        """The tools as a model is told about them."""
        return self._offers

    @property
    def invalid(self) -> tuple[Invalid, ...]:
        return self._invalid

    def load(self) -> None:
        """Look at the directories and read what is new or changed."""
        seen: dict[Path, tuple[_Stamp, Tool | Invalid]] = {}
        by_name: dict[str, Tool | Invalid] = {}
        for directory in self._directories:
            for file in _manifest_files(directory):
                stamp = _stamp(file)
                if stamp is None:
                    continue
                known = self._read.get(file)
                if known is None or known[0] != stamp:
                    known = (stamp, _read(file))
                    _report(known[1], new=not self._read)
                seen[file] = known
                by_name[file.stem] = known[1]
        self._read = seen
        self._tools = {n: t for n, t in sorted(by_name.items()) if isinstance(t, Tool)}
        self._offers = tuple(
            ToolOffer(
                name=t.manifest.name,
                description=t.manifest.description,
                parameters=t.parameters,
                verbs=t.manifest.verbs,
            )
            for t in self._tools.values()
        )
        self._invalid = tuple(entry for _, entry in seen.values() if isinstance(entry, Invalid))

    async def prepare(self) -> None:
        """Compile what checks arguments ahead of the first call; others get their turn in between."""
        for tool in self.all():
            tool.prepare()
            await asyncio.sleep(0)

    async def follow(self) -> None:
        """Read again whenever a directory changes, until cancelled."""
        async with aclosing(watch(self._directories)) as changes:
            async for _ in changes:
                before = set(self._tools)
                self.load()
                after = set(self._tools)
                log.info(
                    "tools were read again: %d, %d bad",
                    len(self._tools),
                    len(self._invalid),
                    extra={
                        "CLAWOS_TOOLS_ADDED": " ".join(sorted(after - before)),
                        "CLAWOS_TOOLS_REMOVED": " ".join(sorted(before - after)),
                    },
                )


def _manifest_files(directory: Path) -> list[Path]:
    try:
        return sorted(p for p in directory.iterdir() if p.suffix == ".toml")[:MAX_TOOLS]
    except OSError:
        return []


def _stamp(file: Path) -> _Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _read(file: Path) -> Tool | Invalid:
    try:
        if not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
            return Invalid(file, f"not a file of at most {MAX_FILE_BYTES} bytes")
        manifest = from_toml(file, Manifest)
    except (ConfigInvalid, OSError) as error:
        return Invalid(file, str(error).removeprefix(f"{file}: "))
    if manifest.name != file.stem:
        return Invalid(file, f"name: is {manifest.name!r}, but the file is named for {file.stem!r}")
    return Tool(manifest, file)


def _report(entry: Tool | Invalid, *, new: bool) -> None:
    if isinstance(entry, Invalid):
        log.warning(
            "tool manifest not taken: %s: %s", entry.file, entry.error, extra={"CLAWOS_FILE": str(entry.file)}
        )
    elif not new:
        log.debug("tool manifest read: %s", entry.file)
