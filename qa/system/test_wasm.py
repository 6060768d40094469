"""A WebAssembly tool that an administrator adds: taken by the agent, run by the isolator, held by limits."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qa.conftest import Call, Ran
from qa.vm.machine import Output

sys.path.append(str(Path(__file__).parents[2] / "services" / "tests" / "isolator"))

import wasm_example  # found through the path set above
import wasm_modules as modules

Run = Callable[..., Output]

TOOLS = "/etc/clawos/tools.d"


def put(root: Run, path: str, data: bytes) -> None:
    done = root(f"base64 -d >{path} <<'END'\n{base64.encodebytes(data).decode()}END\n")
    assert done.status == 0, done.stderr


@pytest.fixture(scope="module")
def manifest(root: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The documentation's tool, copied as it says there; its manifest's text."""
    made = wasm_example.build(tmp_path_factory.mktemp("example"))
    put(root, f"{TOOLS}/{made.module.name}", made.module.read_bytes())
    put(root, f"{TOOLS}/{made.manifest.name}", made.manifest.read_bytes())
    yield made.manifest.read_text()
    root(f"rm -f {TOOLS}/text.count.* {TOOLS}/test.wasm.*")


@pytest.fixture
def added(root: Run, call: Call, manifest: str) -> Callable[[bytes], Ran]:
    """Add a tool of the same manifest with another module, and call it."""

    def run(module: bytes) -> Ran:
        put(root, f"{TOOLS}/test.wasm.wasm", module)
        put(root, f"{TOOLS}/test.wasm.toml", manifest.replace("text.count", "test.wasm").encode())
        return call("test.wasm", path="one")

    return run


def test_the_documented_tool_is_offered_and_counts(manifest: str, root: Run, call: Call) -> None:
    shown = root("claw tools --json text.count")
    assert shown.status == 0, shown.stderr
    assert json.loads(shown.text)["class"] == "safe"
    call("file.write", path="a.txt", text="one two\n three")
    ran = call("text.count", path="a.txt")
    assert ran.outcome == (0, "")
    assert ran.stdout == "a.txt has 3 words.\n"
    assert call("file.delete", path="a.txt").outcome == (0, "")


def test_it_reads_only_what_its_manifest_names(manifest: str, root: Run, call: Call) -> None:
    assert root("wc -w </etc/os-release").status == 0, "control"
    assert call("file.read", path="/etc/os-release").exit_code == 0, "control: another tool may"
    ran = call("text.count", path="/etc/os-release")
    assert (ran.exit_code, ran.stdout) == (1, "")


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [
        (modules.HELLO, 0, ""),
        (modules.exit_with(42), 42, ""),
        (modules.counting(10_000_000), 0, ""),
        (modules.WASTEFUL, 204, "run-wasm: out of fuel (limit 3000000000)"),
        (modules.having(600), 206, "run-wasm: out of memory (limit 33554432 bytes)"),
        (modules.RECURSION, 207, "run-wasm: out of stack (limit 1048576 bytes)"),
        (modules.UNREACHABLE, 208, "run-wasm: trap: unreachable code was reached"),
        (b"\0asm\1\0\0\0no", 202, "run-wasm: not a valid module"),
    ],
)
def test_how_it_ended_is_told(added: Callable[[bytes], Ran], module: bytes, code: int, words: str) -> None:
    ran = added(module)
    assert ran.exit_code == code, ran
    assert ran.stderr.startswith(words) if words else not ran.stderr


def test_no_sandbox_makes_memory_executable(call: Call, root: Run) -> None:
    """Why modules are interpreted: native code would need this."""
    code = "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)"
    assert root(f"python3 -c '{code}'").status == 0, "control"
    ran = call("python.run", code=code)
    assert ran.exit_code == 1
    assert "PermissionError" in ran.stderr
