"""Every shipped tool, in the sandbox that its manifest asks for."""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clawos.isolator.config import Config
from clawos.isolator.planner import Planner
from clawos.isolator.service import Isolator
from clawos.isolator.spec import parse

from .conftest import POLICIES, SERVICES, Ran, finish, spec_text

pytestmark = pytest.mark.processes

INSTALLED = Path("/usr/lib/clawos/tools")
MANIFESTS = sorted((POLICIES / "tools").glob("*.toml"))


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """The tools where the image has them; this /usr is the tools root's own."""
    if INSTALLED.exists():
        shutil.rmtree(INSTALLED)
    shutil.copytree(SERVICES / "tools", INSTALLED)
    yield
    shutil.rmtree(INSTALLED)


def fill(argv: list[Any], arguments: dict[str, str]) -> list[str]:
    filled: list[str] = []
    for part in argv:
        group = part if isinstance(part, list) else [part]
        names = [p[1:-1] for p in group if p.startswith("{")]
        if all(name in arguments for name in names):
            filled += [arguments[p[1:-1]] if p.startswith("{") else p for p in group]
    return filled


def specification(manifest: dict[str, Any], **arguments: str) -> str:
    text = spec_text(
        *fill(manifest["argv"], arguments),
        runtime=manifest.get("runtime", "native"),
        quota=manifest["quota"],
        seccomp=manifest["seccomp"],
        home_owner=0,
        **manifest.get("permissions", {}),
    )
    return text.replace("test.tool", manifest["name"])


def manifest(name: str) -> dict[str, Any]:
    return tomllib.loads((POLICIES / "tools" / f"{name}.toml").read_text())


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda f: f.stem)
def test_every_manifest_is_granted(planner: Planner, file: Path) -> None:
    made = tomllib.loads(file.read_text())
    arguments = dict.fromkeys(made["arguments"].get("properties", {}), "x")
    plan = planner.plan(parse(specification(made, **arguments)))
    assert plan.tool == file.stem
    program = Path(plan.argv[0])
    assert os.access(program, os.X_OK), f"{program} is not there"


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("cpu.info", {}, " × "),
        ("cpu.load", {}, "Load: "),
        ("directory.size", {"path": "/etc"}, "/etc takes "),
        ("disk.list", {}, "NAME "),
        ("disk.usage", {}, "SIZE"),
        ("disk.usage", {"path": "/"}, "FREE"),
        ("file.find", {"name": "debian_version"}, "/etc/debian_version"),
        ("file.hash", {"path": "/etc/debian_version"}, "  /etc/debian_version"),
        ("file.info", {"path": "/etc/debian_version"}, "Owner:     the system, or somebody else"),
        ("file.list", {"path": "/etc"}, "passwd"),
        ("file.read", {"path": "/etc/debian_version"}, "."),
        ("file.search", {"text": "root:x", "path": "/etc/passwd"}, "root:x:0"),
        ("host.name", {}, "This machine is called "),
        ("journal.show", {"lines": "1"}, "The log holds"),
        ("math.eval", {"expression": "6 * 7"}, "42"),
        ("memory.usage", {}, "memory is free"),
        ("network.ports", {}, ""),
        ("network.show", {}, "lo:  127.0.0.1/8"),
        ("process.find", {"name": "python"}, "python"),
        ("process.list", {"sort": "memory", "count": "3"}, "PROGRAM"),
        ("python.run", {"code": "n = 6\nn * 7"}, "42"),
        (
            "python.run",
            {"code": "import subprocess; subprocess.run(['echo', 'from a child'])"},
            "from a child",
        ),
        ("shell.run", {"command": "echo one | sed s/one/two/; awk 'BEGIN { print 3 }'"}, "two\n3"),
        ("system.uptime", {}, "Up "),
        ("system.version", {}, "Linux kernel "),
        ("time.now", {}, ":"),
        ("user.list", {}, "accounts of services"),
    ],
)
async def test_tools_work_inside(
    isolator: Isolator, tool: str, arguments: dict[str, str], words: str
) -> None:
    ran = await call(isolator, tool, **arguments)
    assert (ran.exit_code, ran.stderr) == (0, ""), ran
    assert words in ran.stdout


async def call(isolator: Isolator, tool: str, **arguments: str) -> Ran:
    text = specification(manifest(tool), **arguments)
    return await finish(await isolator.run(text, os.open(os.devnull, os.O_RDONLY), ":1.1"))


async def test_a_file_is_written_read_and_deleted(isolator: Isolator, config: Config) -> None:
    assert (await call(isolator, "file.write", path="a.txt", text="hello")).stdout == "Wrote a.txt.\n"
    assert (await call(isolator, "file.read", path="a.txt")).stdout == "hello\n"
    assert (await call(isolator, "file.search", text="HELLO")).stdout == "/home/root/a.txt:1:hello\n"
    assert (await call(isolator, "file.delete", path="a.txt")).exit_code == 0
    assert list((config.home / "0").iterdir()) == []


async def test_a_directory_is_made_filled_and_measured(isolator: Isolator, config: Config) -> None:
    assert (await call(isolator, "directory.create", path="notes/old")).stdout == (
        "Made the directory notes/old.\n"
    )
    await call(isolator, "file.write", path="a.txt", text="hello")
    copy = {"from": "a.txt", "to": "notes"}
    assert (await call(isolator, "file.copy", **copy)).stdout == "Copied a.txt to notes/a.txt.\n"
    again = await call(isolator, "file.copy", **copy)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "notes/a.txt is there already" in again.stderr
    assert "a.txt is there already" in (await call(isolator, "file.move", **copy)).stderr
    moved = await call(isolator, "file.move", **{"from": "a.txt", "to": "~/notes/old/b.txt"})
    assert moved.stdout == "Moved a.txt to /home/root/notes/old/b.txt.\n"
    home = config.home / "0"
    assert sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()) == [
        "notes/a.txt",
        "notes/old/b.txt",
    ]
    assert "Owner:     you" in (await call(isolator, "file.info", path="notes/a.txt")).stdout
    assert (await call(isolator, "file.hash", path="~/notes/a.txt")).stdout == (
        f"{hashlib.sha256(b'hello\n').hexdigest()}  /home/root/notes/a.txt\n"
    )
    assert " old\n" in (await call(isolator, "directory.size", path="notes")).stdout
    out = await call(isolator, "file.copy", **{"from": "/etc/debian_version", "to": "version"})
    assert out.exit_code == 0, "what may be read may be copied into the home"


async def test_nothing_outside_the_home_is_made_copied_or_moved(isolator: Isolator) -> None:
    await call(isolator, "file.write", path="a.txt", text="hello")
    for target in ("/etc/x", "/usr/lib/x", "/home/x", "/var/log/x", "/x"):
        for tool in ("file.copy", "file.move"):
            ran = await call(isolator, tool, **{"from": "a.txt", "to": target})
            assert (ran.exit_code, ran.stdout) == (1, ""), target
            assert "only your home" in ran.stderr or "there is no directory" in ran.stderr
        ran = await call(isolator, "directory.create", path=target)
        assert (ran.exit_code, ran.stdout) == (1, ""), target
        assert "tools change only your home" in ran.stderr
    ran = await call(isolator, "file.move", **{"from": "/etc/passwd", "to": "x"})
    assert (ran.exit_code, ran.stdout) == (1, "")


async def test_nothing_outside_the_home_is_written(isolator: Isolator) -> None:
    for path in ("/etc/passwd", "/usr/lib/clawos/tools/memory", "/home/other"):
        ran = await call(isolator, "file.write", path=path, text="x")
        assert ran.exit_code == 1
        assert "only your home can" in ran.stderr
