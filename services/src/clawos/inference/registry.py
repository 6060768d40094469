"""The models of this machine: which there are, which one is in use, and which are sound."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from clawos.core.errors import BadRequest, Busy, ClawError
from clawos.inference.config import Config
from clawos.inference.errors import ModelInvalid, ModelMissing
from clawos.inference.gguf import read_header
from clawos.inference.trial import Finding, kind_of, try_out
from clawos.inference.verdicts import Verdicts, key_of, write_atomically

BUILTIN = "builtin"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PART = ".part"
_CHUNK = 4 << 20
# A full file system would keep all services from writing their state.
_SPARE_BYTES = 256 << 20


@dataclass(frozen=True)
class Listed:
    """One model as `Models` shows it."""

    name: str
    file: str
    size_bytes: int
    builtin: bool
    active: bool
    dialect: str
    error: str | None


class Registry:
    """Model files and what we know of them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._verdicts = Verdicts(config.state / "verdicts.json")
        self._choice = config.state / "active"
        self._adding = asyncio.Lock()
        self._trials: dict[Path, asyncio.Lock] = {}
        for left in config.models.glob(f".*{_PART}"):
            left.unlink()

    def path(self, name: str) -> Path:
        """The file of a model. Raises BadRequest for what is no name, ModelMissing."""
        path = self._config.builtin if name == BUILTIN else self._config.models / f"{_checked(name)}.gguf"
        if not path.is_file():
            raise ModelMissing(f"there is no model {name!r}", "see 'claw model list'", model=name)
        return path

    @property
    def active(self) -> str:
        """The model in use where a request names none."""
        try:
            name = self._choice.read_text().strip()
        except OSError:
            return BUILTIN
        return name if _NAME.fullmatch(name) else BUILTIN

    def choose(self, name: str) -> None:
        """Make a model the one in use, over restarts."""
        write_atomically(self._choice, name.encode())

    async def examine(self, name: str) -> Finding:
        """Make sure that a model can be loaded without harm. Raises ModelMissing or ModelInvalid."""
        path = self.path(name)
        # Two who ask at once need one trial.
        async with self._trials.setdefault(path, asyncio.Lock()):
            finding = await self._finding(path)
        if finding.error:
            raise ModelInvalid(
                f"the model {name!r} cannot be used: {finding.error}",
                "fetch it again, or use another",
                model=name,
            )
        return finding

    async def _finding(self, path: Path) -> Finding:
        try:
            key = await asyncio.to_thread(key_of, path)
        except OSError as error:
            return Finding(error=f"it cannot be read: {error.strerror}")
        known = self._verdicts.get(path, key)
        if known is not None:
            return known
        finding = await asyncio.to_thread(_by_header, path)
        # What lies below /usr came with the image, as llama.cpp itself did: its trial was the image's tests.
        if not finding.error and not path.is_relative_to("/usr"):
            finding = await try_out(path, self._config.trial_s, self._config.thread_count())
        self._verdicts.put(path, key, finding)
        return finding

    async def list(self) -> list[Listed]:
        """All models; those that were not tried out yet are judged by their headers."""
        active = self.active
        names = [
            BUILTIN,
            *sorted(p.stem for p in self._config.models.glob("*.gguf") if _NAME.fullmatch(p.stem)),
        ]
        return [await asyncio.to_thread(self._listed, name, active) for name in names]

    def _listed(self, name: str, active: str) -> Listed:
        path = self._config.builtin if name == BUILTIN else self._config.models / f"{name}.gguf"
        try:
            size = path.stat().st_size
            finding = self._verdicts.get(path, key_of(path)) or _by_header(path)
        except OSError as error:
            size, finding = 0, Finding(error=f"{path}: {error.strerror}")
        return Listed(
            name, str(path), size, name == BUILTIN, name == active, finding.dialect, finding.error or None
        )

    async def add(self, name: str, fd: int) -> Finding:
        """Copy a GGUF into the registry under this name. Takes ownership of fd."""
        with os.fdopen(fd, "rb", buffering=0) as source:
            target = self._config.models / f"{_checked(name)}.gguf"
            if name == BUILTIN or target.exists():
                raise BadRequest(
                    f"there is a model {name!r} already", f"choose another name, or remove {name} first"
                )
            if self._adding.locked():
                raise Busy("another model is being added", "try again when it is done")
            async with self._adding:
                return await self._add(source.fileno(), target)

    async def _add(self, fd: int, target: Path) -> Finding:
        part = target.with_name(f".{target.stem}{_PART}")
        try:
            await asyncio.to_thread(self._copy, fd, part)
            finding = await asyncio.to_thread(_by_header, part)
            if not finding.error:
                finding = await try_out(part, self._config.trial_s, self._config.thread_count())
            if finding.error:
                words = finding.error.replace(part.name, target.name)
                raise ModelInvalid(f"the file is refused: {words}", "fetch it again, or add another")
            key = await asyncio.to_thread(key_of, part)
            part.rename(target)
            await asyncio.to_thread(_sync_directory, target.parent)
            self._verdicts.put(target, key, finding)
            return finding
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, fd: int, part: Path) -> None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest("the descriptor is not that of a file", "save the model to a file first")
        free = shutil.disk_usage(part.parent).free
        if status.st_size > min(self._config.max_model_bytes, free - _SPARE_BYTES):
            raise BadRequest(
                f"{status.st_size} bytes do not fit: {free} are free, {_SPARE_BYTES} of them are kept free, "
                f"and max_model_bytes is {self._config.max_model_bytes}",
                "make room below /var/lib/clawos/models",
            )
        try:
            with part.open("xb", buffering=0) as file:
                at = 0
                while at < status.st_size and (data := os.pread(fd, min(_CHUNK, status.st_size - at), at)):
                    at += file.write(data)
                os.fsync(file.fileno())
        except OSError as error:
            raise BadRequest(
                f"copying failed: {error.strerror}", "check the file and the free space"
            ) from None

    def remove(self, name: str) -> None:
        """Delete an added model; the one in use then is the built-in one."""
        if name == BUILTIN:
            raise BadRequest("the built-in model stays", "use another with 'claw model use'")
        path = self.path(name)
        path.unlink()
        self._verdicts.forget(path)
        if self.active == name:
            self.choose(BUILTIN)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{name!r} is not a name for a model", "use letters, digits, '.', '_' and '-', at most 64 of them"
        )
    return name


def _by_header(path: Path) -> Finding:
    try:
        header = read_header(path)
        return Finding(vocabulary=header.vocabulary, dialect=kind_of(header))
    except ClawError as error:
        return Finding(error=error.message)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
