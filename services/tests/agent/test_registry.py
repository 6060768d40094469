"""The registry: a hundred tools at once, bad ones reported, changes noticed."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agent.conftest import TOOLS

from clawos.agent.errors import ArgumentsInvalid, ToolUnknown
from clawos.agent.manifest import Safety
from clawos.agent.registry import Registry

MANIFEST = """
name = "{name}"
description = "{description}"
class = "{safety}"
quota = "small"
seccomp = "shell"
argv = ["/usr/bin/tool", "--", "{{path}}", ["--count", "{{count}}"]]

[permissions]
read = ["/etc"]

[arguments]
type = "object"
additionalProperties = false
required = ["path"]

[arguments.properties.path]
type = "string"
minLength = 1
maxLength = 1024

[arguments.properties.count]
type = "integer"
minimum = 1
maximum = 9
"""


def write(
    directory: Path, name: str, description: str = "A tool.", safety: str = "safe", text: str | None = None
) -> Path:
    file = directory / f"{name}.toml"
    file.write_text(text or MANIFEST.format(name=name, description=description, safety=safety))
    return file


def loaded(*directories: Path) -> Registry:
    registry = Registry(directories)
    registry.load()
    return registry


@asynccontextmanager
async def following(registry: Registry) -> AsyncIterator[Callable[[Callable[[], bool]], Awaitable[None]]]:
    """The registry's follower at work; yields a way to wait for what it should come to see."""
    task = asyncio.create_task(registry.follow())
    await asyncio.sleep(0.02)  # it arms its watches at its first step

    async def wait(seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not seen():  # noqa: ASYNC110 # the registry tells nobody, it is asked
                await asyncio.sleep(0.01)

    try:
        yield wait
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_hundred_tools_in_less_than_100_ms(tmp_path: Path) -> None:
    for n in range(100):
        write(tmp_path, f"many.t{n}")
    best_s = 9.0
    for _ in range(5):
        registry = Registry([tmp_path])
        # Processor time: on a busy machine the clock on the wall measures the neighbours.
        started = time.process_time()
        registry.load()
        best_s = min(best_s, time.process_time() - started)
    assert len(registry) == 100
    assert registry.invalid == ()
    assert best_s < 0.1


def test_lookup_does_not_depend_on_the_number_of_tools(tmp_path: Path) -> None:
    for n in range(1000):
        write(tmp_path, f"many.t{n}")
    few, many = loaded(TOOLS), loaded(tmp_path)

    def lookup_s(registry: Registry, name: str) -> float:
        best = 9.0
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(1000):
                registry.get(name)
            best = min(best, time.perf_counter() - started)
        return best

    assert lookup_s(many, "many.t999") < 3 * lookup_s(few, "time.now")


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    for name in ("a.a", "b.b"):
        write(tmp_path, name)
    registry = loaded(tmp_path)
    before = registry.get("a.a")
    write(tmp_path, "b.b", "Changed in length.")
    registry.load()
    assert registry.get("a.a") is before
    assert registry.get("b.b").manifest.description == "Changed in length."


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("bad.toml", lambda t: t + "\n[[", "(at end of document)"),
        ("bad.field", lambda t: "color = 1\n" + t, "unknown field `color`"),
        ("bad.class", lambda t: t.replace('"safe"', '"harmless"'), "`$.class`"),
        ("bad.name", lambda t: t.replace('name = "bad.name"', 'name = "other.name"'), "named for 'bad.name'"),
        ("bad.program", lambda t: t.replace("/usr/bin/tool", "tool"), "absolute path of a program"),
        ("bad.first", lambda t: t.replace('"/usr/bin/tool"', '"{path}"'), "absolute path of a program"),
        ("bad.placeholder", lambda t: t.replace('"{path}"', '"{where}"'), "not declared: where"),
        ("bad.glued", lambda t: t.replace('"{count}"', '"{count}x"'), "$.argv"),
        (
            "bad.unused",
            lambda t: t.replace(', ["--count", "{count}"]', ""),
            "does not use the arguments count",
        ),
        ("bad.optional", lambda t: t.replace('["--count", "{count}"]', '"{count}"'), "count may be absent"),
        ("bad.open", lambda t: t.replace("Properties = false", "Properties = true"), "must be false"),
        ("bad.required", lambda t: t.replace('["path"]', '["path", "x"]'), "not a property: x"),
        ("bad.unbounded", lambda t: t.replace("maxLength = 1024", ""), "needs an enum or a maxLength"),
        ("bad.pattern", lambda t: t.replace("minLength = 1", 'pattern = "["'), "pattern:"),
        ("bad.bound", lambda t: t.replace("minimum = 1", "minLength = 1"), "do not apply to integer"),
        ("bad.type", lambda t: t.replace('"integer"', '"array"'), "`$.arguments"),
        ("bad.path", lambda t: t.replace('"/etc"', '"/etc/../root"'), "not a plain absolute path"),
        ("bad.path2", lambda t: t.replace('"/etc"', '"etc"'), "`$.permissions.read"),
        ("bad.root", lambda t: t.replace("[permissions]", "[permissions]\nroot = true"), "`root`"),
        (
            "bad.network",
            lambda t: t.replace("[permissions]", '[permissions]\nnetwork = "lan"'),
            "`$.permissions.network`",
        ),
        ("bad.asks", lambda t: 'asks = "look at {where}"\n' + t, "not a required argument: where"),
        ("bad.asks2", lambda t: 'asks = "count {count}"\n' + t, "not a required argument: count"),
        ("bad.asks3", lambda t: 'asks = "look at {path"\n' + t, "`$.asks`"),
        ("bad.asks4", lambda t: 'asks = "look at\\u202e {path}"\n' + t, "characters that are seen"),
        ("bad.asks5", lambda t: 'asks = "look\\n"\n' + t, "asks"),
        ("bad.runtime", lambda t: 'runtime = "perl"\n' + t, "`$.runtime`"),
        (
            "bad.wasm",
            lambda t: 'runtime = "wasm"\n' + t.replace("[permissions]", "[permissions]\nhost_proc = true"),
            "only the permissions home and read",
        ),
        ("bad.quota", lambda t: t.replace('quota = "small"', ""), "`quota`"),
        ("bad.huge", lambda t: t + "#" * 70_000, "at most 65536 bytes"),
        ("bad.bytes", lambda t: t.replace("A tool.", "\udcff"), "utf-8"),
    ],
)
def test_bad_manifest_is_reported_and_the_others_stay(
    tmp_path: Path, name: str, change: Callable[[str], str], error: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "good.one")
    text = MANIFEST.format(name=name, description="A tool.", safety="safe")
    changed = change(text)
    assert changed != text
    (tmp_path / f"{name}.toml").write_bytes(changed.encode(errors="surrogateescape"))
    registry = loaded(tmp_path)
    assert [tool.manifest.name for tool in registry.all()] == ["good.one"]
    (invalid,) = registry.invalid
    assert invalid.file == tmp_path / f"{name}.toml"
    assert error in invalid.error
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_file_that_is_no_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.directory.toml").mkdir()
    os.mkfifo(tmp_path / "a.fifo.toml")
    (tmp_path / "a.dangling.toml").symlink_to("nowhere")
    registry = loaded(tmp_path)
    assert [i.file.name for i in registry.invalid] == ["a.directory.toml", "a.fifo.toml"]


def test_administrator_wins_and_a_slip_of_his_does_not_loosen(tmp_path: Path) -> None:
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    shipped.mkdir()
    own.mkdir()
    write(shipped, "file.wipe", safety="cautious")
    file = write(own, "file.wipe", safety="dangerous")
    registry = loaded(shipped, own)
    assert registry.get("file.wipe").manifest.safety is Safety.DANGEROUS
    file.write_text("class =")
    registry.load()
    with pytest.raises(ToolUnknown):
        registry.get("file.wipe")
    file.unlink()
    registry.load()
    assert registry.get("file.wipe").manifest.safety is Safety.CAUTIOUS


async def test_changed_added_and_removed_files_are_noticed(tmp_path: Path) -> None:
    write(tmp_path, "a.a")
    registry = loaded(tmp_path)
    async with following(registry) as wait:
        added = write(tmp_path, "b.b")
        await wait(lambda: len(registry) == 2)
        write(tmp_path, "a.a", "Other words.")
        await wait(lambda: registry.get("a.a").manifest.description == "Other words.")
        added.write_text("name =")
        await wait(lambda: len(registry.invalid) == 1)
        assert len(registry) == 1
        # As editors and package managers do: a new file moved over the old one.
        new = tmp_path / "b.b.toml.new"
        new.write_text(MANIFEST.format(name="b.b", description="A tool.", safety="safe"))
        new.rename(added)
        await wait(lambda: len(registry) == 2)
        added.unlink()
        await wait(lambda: len(registry) == 1)
        for n in range(100):
            write(tmp_path, f"burst.t{n}")
        await wait(lambda: len(registry) == 101)
    assert [offer.name for offer in registry.offers] == [tool.manifest.name for tool in registry.all()]


async def test_directory_that_appears_and_is_replaced_is_noticed(tmp_path: Path) -> None:
    directory = tmp_path / "tools.d"
    registry = loaded(directory)
    async with following(registry) as wait:
        directory.mkdir()
        write(directory, "a.a")
        await wait(lambda: len(registry) == 1)
        shutil.rmtree(directory)
        await wait(lambda: len(registry) == 0)
        directory.mkdir()
        await asyncio.sleep(0.2)
        write(directory, "b.b")
        await wait(lambda: len(registry) == 1)


def test_arguments_are_checked_and_normalised(tmp_path: Path) -> None:
    write(tmp_path, "a.a")
    tool = loaded(tmp_path).get("a.a")
    assert tool.check({"path": "x", "count": 3.0}) == {"path": "x", "count": 3}
    assert isinstance(tool.check({"path": "x", "count": 3.0})["count"], int)
    for wrong in ({}, {"path": ""}, {"path": "x", "count": 0}, {"path": "x", "count": True}, {"path": 1}):
        with pytest.raises(ArgumentsInvalid):
            tool.check(wrong)
