"""WebAssembly in the sandbox, for real: the same fences as for a native program, and its own inside them."""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from clawos.agent.manifest import Manifest
from clawos.agent.sandbox import User, run_spec
from clawos.agent.template import expand
from clawos.core.parse import from_toml, to_json
from clawos.isolator import quotas
from clawos.isolator.config import Config
from clawos.isolator.errors import SpecInvalid
from clawos.isolator.planner import Planner
from clawos.isolator.service import Isolator
from clawos.isolator.spec import parse
from clawos.isolator.wasm import ends
from clawos.isolator.wasm.options import PROGRAM
from clawos.isolator.wasm.options import parse as parse_options

from . import wasm_example
from . import wasm_modules as modules
from .conftest import POLICIES, SERVICES, Ran, Run, finish, spec_text

pytestmark = pytest.mark.processes

DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")
SECCOMP = "wasm"


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """The runner and the library where the image has them; this /usr is the tools root's own."""
    program, package, library = Path(PROGRAM), DIST_PACKAGES / "clawos", DIST_PACKAGES / "wasmtime"
    shutil.rmtree(package, ignore_errors=True)
    shutil.rmtree(library, ignore_errors=True)
    program.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(SERVICES / "tools" / program.name, program)
    shutil.copytree(SERVICES / "src" / "clawos", package)
    installed = Path(sysconfig.get_path("purelib")) / "wasmtime"
    shutil.copytree(installed, library, ignore=shutil.ignore_patterns("*.py", "component", "__pycache__"))
    yield
    shutil.rmtree(package)
    shutil.rmtree(library)
    program.unlink(missing_ok=True)


@pytest.fixture
def config(config: Config) -> Iterator[Config]:
    """With a directory of modules that a test may write to, not below /tmp: each sandbox has its own."""
    with tempfile.TemporaryDirectory(prefix="clawos-test-", dir="/srv") as directory:
        Path(directory).chmod(0o755)
        yield msgspec.structs.replace(config, wasm=(directory,))


class RunModule(Protocol):
    def __call__(self, module: bytes, *arguments: str, **spec: Any) -> Awaitable[Ran]: ...


@pytest.fixture
def run_module(run: Run, config: Config) -> RunModule:
    """Run a module in a sandbox to its end."""

    async def _run(module: bytes, *arguments: str, **spec: Any) -> Ran:
        file = Path(config.wasm[0]) / "module.wasm"
        file.write_bytes(module)
        return await run(str(file), *arguments, **{"runtime": "wasm", "seccomp": SECCOMP, **spec})

    return _run


async def test_hello(run_module: RunModule) -> None:
    ran = await run_module(modules.HELLO)
    assert (ran.stdout, ran.stderr, ran.exit_code) == ("hello\n", "", 0)
    assert ran.result["limit"] is None


async def test_arguments_environment_and_exit_code(run_module: RunModule, config: Config) -> None:
    words = (await run_module(modules.ARGUMENTS, "--fuel", "two words")).stdout.split("\0")
    assert words == [f"{config.wasm[0]}/module.wasm", "--fuel", "two words", ""]
    environment = (await run_module(modules.ENVIRONMENT, home="read", home_owner=0)).stdout.split("\0")
    assert {"HOME=/home/root", "USER=root", "LANG=C.UTF-8"} <= set(environment)
    assert (await run_module(modules.exit_with(42))).exit_code == 42


async def test_standard_input(isolator: Isolator, config: Config, tmp_path: Path) -> None:
    module = Path(config.wasm[0]) / "cat.wasm"
    module.write_bytes(modules.CAT)
    file = tmp_path / "in"
    file.write_bytes(b"x" * 300_000)
    text = spec_text(str(module), runtime="wasm", seccomp=SECCOMP, stdin=True)
    ran = await finish(await isolator.run(text, os.open(file, os.O_RDONLY), ":1.1"))
    assert ran.stdout == "x" * 300_000


async def test_the_home_is_read_and_written_as_permitted(run_module: RunModule, config: Config) -> None:
    home = {"home_owner": 0}
    make = modules.create(4, "note.txt")
    assert (await run_module(modules.PREOPENS, home="write", **home)).stdout.split() == [
        "/tmp",
        "/home/root",
        ".",
    ]
    assert (await run_module(modules.PREOPENS)).stdout.split() == ["/tmp"]
    assert (await run_module(make, home="read", **home)).exit_code != 0
    assert not (config.home / "0" / "note.txt").exists()
    assert (await run_module(make, home="write", **home)).exit_code == 0
    assert (config.home / "0" / "note.txt").read_text() == "made"
    # Read-only directories come first.
    assert (await run_module(modules.show(3, "note.txt"), home="read", **home)).stdout == "made"


async def test_only_what_the_manifest_names_is_read(run_module: RunModule, run: Run) -> None:
    """The sandbox has an /etc and a /usr; a module sees them only if they are named."""
    assert (await run("/usr/bin/cat", "/etc/passwd")).exit_code == 0, "control: a native program"
    assert (await run_module(modules.PREOPENS, read=["/etc"])).stdout.split() == ["/etc", "/tmp"]
    for path in ("../etc/passwd", "/etc/passwd", "../usr/bin/true"):
        assert (await run_module(modules.show(3, path))).stdout == ""
    named = await run_module(modules.show(3, "passwd"), read=["/etc"])
    assert "root:" in named.stdout, named
    assert (await run_module(modules.create(3, "x"), read=["/etc"])).exit_code != 0
    assert (await run_module(modules.create(3, "x"))).exit_code == 0, "control: /tmp is its own"


@pytest.mark.parametrize(
    ("module", "spec", "code", "limit", "words"),
    [
        (modules.WASTEFUL, {}, ends.FUEL, "fuel", "out of fuel (limit 3000000000)"),
        # a wall clock long enough that a busy machine's own delays are small beside the tenth
        (modules.SLEEP, {"wall_s": 10}, ends.TIME, "wall", "out of time (limit 9 s)"),
        (modules.having(600), {}, ends.MEMORY, "memory", "out of memory (limit 33554432 bytes)"),
        (modules.RECURSION, {}, ends.STACK, "stack", "out of stack (limit 1048576 bytes)"),
        (modules.UNREACHABLE, {}, ends.TRAP, None, "trap: unreachable code was reached"),
        (b"\0asm\1\0\0\0x", {}, ends.INVALID, None, "not a valid module"),
        (modules.FOREIGN, {}, ends.UNFIT, None, "unknown import"),
        (b"\0asm\1\0\0\0" + b"\0" * 524_288, {}, ends.UNREADABLE, None, "is too large (limit 524288 bytes)"),
    ],
)
async def test_the_limit_that_ended_it_is_told(
    run_module: RunModule, module: bytes, spec: dict[str, Any], code: int, limit: str | None, words: str
) -> None:
    ran = await run_module(module, **spec)
    assert (ran.exit_code, ran.result["limit"]) == (code, limit), ran
    assert ran.stderr.startswith("run-wasm: ")
    assert words in ran.stderr.splitlines()[0]


async def test_a_native_program_that_exits_alike_met_no_limit(run: Run) -> None:
    ran = await run("/bin/sh", "-c", f"exit {ends.FUEL}")
    assert (ran.exit_code, ran.result["limit"]) == (ends.FUEL, None)


async def test_the_limits_are_the_quota_s(run_module: RunModule) -> None:
    assert (await run_module(modules.having(600), quota="medium")).exit_code == 0
    assert (await run_module(modules.growing(600))).exit_code == 9
    assert (await run_module(modules.growing(600), quota="medium")).exit_code == 0


def test_only_modules_of_the_configured_directories(planner: Planner, config: Config, tmp_path: Path) -> None:
    def plan(path: Path | str, **spec: Any) -> tuple[str, ...]:
        return planner.plan(parse(spec_text(str(path), runtime="wasm", **spec))).argv

    inside = Path(config.wasm[0])
    (inside / "good.wasm").write_bytes(modules.EMPTY)
    (tmp_path / "outside.wasm").write_bytes(modules.EMPTY)
    (inside / "link.wasm").symlink_to(tmp_path / "outside.wasm")
    (inside / "directory.wasm").mkdir()
    for path, words in (
        (tmp_path / "outside.wasm", "is not below wasm"),
        (inside / "link.wasm", "is not below wasm"),
        ("/usr/bin/true", "is not below wasm"),
        (inside / "none.wasm", "there is no module"),
        (inside / "directory.wasm", "there is no module"),
    ):
        with pytest.raises(SpecInvalid, match=words):
            plan(path)
    with pytest.raises(SpecInvalid, match="/etc/passwd is a file"):
        plan(inside / "good.wasm", read=["/etc/passwd"])
    program, *options_words = plan(inside / "good.wasm", read=["/var/log", "/etc/no-such"], wall_s=10)
    options = parse_options(options_words)
    assert program == PROGRAM
    assert options.read == ("/var/log",)
    assert (options.limits.fuel, options.limits.wall_ms) == (3_000_000_000, 9000)


async def test_the_example_of_the_documentation(
    isolator: Isolator, config: Config, run: Run, tmp_path: Path
) -> None:
    example = wasm_example.build(tmp_path)
    manifest = from_toml(example.manifest, Manifest)
    await run("/bin/sh", "-c", "echo ' one two\n three' > ~/a.txt", home="write", home_owner=0)
    installed = Path(config.wasm[0]) / example.module.name
    shutil.copy(example.module, installed)
    assert manifest.argv[0] == f"/etc/clawos/tools.d/{installed.name}"

    async def call(path: str) -> Ran:
        _, *arguments = expand(manifest.argv, {"path": path})
        spec = to_json(run_spec(manifest, (str(installed), *arguments), User(0, "root")))
        return await finish(await isolator.run(spec, os.open(os.devnull, os.O_RDONLY), ":1.1"))

    assert (await call("a.txt")).stdout == "a.txt has 3 words.\n"
    assert (await call("/home/root/a.txt")).stdout == "/home/root/a.txt has 3 words.\n"
    missing = await call("/etc/passwd")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.startswith("/etc/passwd: ")


def test_every_quota_leaves_room_for_runner_and_compiler(config: Config) -> None:
    """As the file says: 20 MiB for the runner, and for each MiB of the module 38 to compile it."""
    for quota in quotas.load(POLICIES / "quotas.toml").values():
        compiler = 38 * quota.wasm.module_bytes
        assert quota.wasm.memory_bytes + compiler + 20 * 2**20 <= quota.memory_bytes
