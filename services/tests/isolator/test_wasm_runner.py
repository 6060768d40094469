"""run-wasm as a program: what a module gets, and how each limit says that it was the one. No sandbox here."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import wasmtime
import wasmtime._bindings as declared
import wasmtime._ffi as ffi
from hypothesis import given
from hypothesis import strategies as st

from clawos.isolator.wasm import ends, library
from clawos.isolator.wasm.options import PROGRAM, Limits, Options, Usage, command, parse

from . import wasm_modules as modules
from .conftest import SERVICES

LIMITS = Limits(
    fuel=1_000_000_000,
    memory_bytes=4 * 1024 * 1024,
    stack_bytes=1024 * 1024,
    tables=2,
    table_elements=1000,
    module_bytes=1024 * 1024,
    wall_ms=20_000,
)
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(SERVICES / "src"), *sys.path]), "HOME": "/home/claw"}


def with_limits(**changed: int) -> Limits:
    return Limits(**{**vars(LIMITS), **changed})


class Runner:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "module.wasm"

    def __call__(
        self,
        module: bytes,
        *arguments: str,
        read: tuple[str, ...] = (),
        write: tuple[str, ...] = (),
        here: str = "",
        stdin: bytes = b"",
        **limits: int,
    ) -> subprocess.CompletedProcess[bytes]:
        self.file.write_bytes(module)
        options = Options(with_limits(**limits), str(self.file), arguments, read=read, write=write, here=here)
        return self.raw(*command(options)[1:], stdin=stdin)

    def raw(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-S", "-m", "clawos.isolator.wasm", *words],
            input=stdin,
            env=ENVIRONMENT,
            cwd=self.directory,
            capture_output=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def ended(ran: subprocess.CompletedProcess[bytes]) -> tuple[int, str]:
    """Exit code and the first line of what was said."""
    return ran.returncode, ran.stderr.decode().split("\n")[0]


def test_hello(run: Runner) -> None:
    ran = run(modules.HELLO)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"hello\n", b"")


def test_errors_go_to_stderr_and_nothing_is_held_back(run: Runner) -> None:
    ran = run(modules.ON_STDERR)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"oh no")


def test_arguments_and_environment(run: Runner) -> None:
    words = ("one", "--fuel", "två words", "-", "")
    told = run(modules.ARGUMENTS, *words).stdout.decode()
    assert told == "".join(f"{word}\0" for word in (str(run.file), *words))
    assert b"HOME=/home/claw\0" in run(modules.ENVIRONMENT).stdout


def test_standard_input(run: Runner) -> None:
    text = b"through a pipe\n" * 10_000
    assert run(modules.CAT, stdin=text).stdout == text


@pytest.mark.parametrize("code", [0, 1, 7, 125])
def test_exit_code_is_passed_on(run: Runner, code: int) -> None:
    ran = run(modules.exit_with(code))
    assert (ran.returncode, ran.stderr) == (code, b"")


def test_an_exit_code_that_is_none_is_a_trap(run: Runner) -> None:
    assert ended(run(modules.exit_with(ends.FUEL))) == (
        ends.TRAP,
        "run-wasm: trap: exit with invalid exit status outside of [0..126)",
    )


def test_fuel_ends_a_loop(run: Runner) -> None:
    assert ended(run(modules.FOREVER, fuel=50_000)) == (ends.FUEL, "run-wasm: out of fuel (limit 50000)")
    loop = modules.counting(10_000)
    assert ended(run(loop, fuel=50_000))[0] == ends.FUEL
    assert ended(run(loop, fuel=200_000)) == (0, ""), "control: with more fuel it ends by itself"


def test_time_ends_a_loop(run: Runner) -> None:
    started = time.monotonic()
    ran = run(modules.FOREVER, fuel=10**15, wall_ms=700)
    assert ended(ran) == (ends.TIME, "run-wasm: out of time (limit 0.7 s)")
    assert 0.7 < time.monotonic() - started < 10
    assert run(modules.counting(10_000), fuel=10**15, wall_ms=10_000).returncode == 0, "control"


def test_time_ends_what_waits_outside_of_its_code(run: Runner) -> None:
    started = time.monotonic()
    assert ended(run(modules.SLEEP, wall_ms=500)) == (ends.TIME, "run-wasm: out of time (limit 0.5 s)")
    assert time.monotonic() - started < 10


def test_memory_is_not_given_beyond_the_limit(run: Runner) -> None:
    assert run(modules.growing(100)).returncode == 9
    assert run(modules.growing(100), memory_bytes=8 * 1024 * 1024).returncode == 0, "control"
    code, line = ended(run(modules.having(100)))
    assert code == ends.MEMORY
    assert line.startswith("run-wasm: out of memory (limit 4194304 bytes)")
    assert run(modules.having(100), memory_bytes=8 * 1024 * 1024).returncode == 0, "control"


def test_tables_are_not_larger_than_the_limit(run: Runner) -> None:
    table = modules.binary('(module (table 5000 funcref) (func (export "_start")))')
    code, line = ended(run(table))
    assert (code, line.partition(":")[2][:45]) == (
        ends.MEMORY,
        " out of table elements (limit 1000): table mi",
    )
    assert run(table, table_elements=10_000).returncode == 0, "control"
    tables = modules.binary('(module (table 1 funcref) (table 1 funcref) (func (export "_start")))')
    code, line = ended(run(tables, tables=1))
    assert (code, line[:55]) == (ends.MEMORY, "run-wasm: too many memories or tables (limit 1 and 1): ")
    assert run(tables).returncode == 0, "control"


def test_stack_is_not_deeper_than_the_limit(run: Runner) -> None:
    assert ended(run(modules.RECURSION)) == (ends.STACK, "run-wasm: out of stack (limit 1048576 bytes)")
    deep = modules.command(
        "(call $deep (i32.const 40000))",
        """(func $deep (param i32)
            (if (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1))))))""",
    )
    assert run(deep).returncode == ends.STACK
    assert run(deep, stack_bytes=2 * 1024 * 1024).returncode == 0, "control"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("(call $boom)", "unreachable code was reached (it had 131072 of at most 4194304 bytes of memory)"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "integer division by zero"),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", "integer overflow"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "conversion to integer out of range"),
        ("(drop (i32.load (i32.const -4)))", "memory access out of bounds"),
        ("(call_indirect (i32.const 9))", "table access out of bounds"),
        ("(call_indirect (i32.const 0))", "indirect call to null"),
        ("(call_indirect (param i32) (i32.const 1) (i32.const 1))", "indirect call of another type"),
    ],
)
def test_traps_are_named(run: Runner, body: str, words: str) -> None:
    more = "(func $boom unreachable) (table 2 funcref) (elem (i32.const 1) $boom)"
    ran = run(modules.command(body, more))
    assert ended(ran)[0] == ends.TRAP
    assert ended(ran)[1].startswith(f"run-wasm: trap: {words}")
    assert b"\n  0: " in ran.stderr, "where it happened"


def test_a_trap_in_the_start_section_is_named(run: Runner) -> None:
    module = modules.binary('(module (func $s unreachable) (start $s) (func (export "_start")))')
    assert ended(run(module)) == (ends.TRAP, "run-wasm: trap: unreachable code was reached")


def test_an_exit_in_the_start_section_is_an_exit(run: Runner) -> None:
    module = modules.command("", "(func $s (call $proc_exit (i32.const 3))) (start $s)")
    assert run(module).returncode == 3


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [
        (b"", ends.INVALID, "is no WebAssembly module"),
        (b"#!/bin/sh\necho no\n", ends.INVALID, "is no WebAssembly module"),
        (b"(module)", ends.INVALID, "is no WebAssembly module"),
        (b"\0asm\x0d\0\1\0", ends.INVALID, "is no module of WebAssembly 1"),
        (b"\0asm\1\0\0\0\xff", ends.INVALID, "not a valid module: "),
        (modules.HELLO[:-3], ends.INVALID, "not a valid module: "),
        (modules.NO_COMMAND, ends.UNFIT, "has no function _start"),
        (modules.binary('(module (global (export "_start") i32 (i32.const 0)))'), ends.UNFIT, "_start"),
        (modules.FOREIGN, ends.UNFIT, "unknown import: `env::system`"),
        (modules.EMPTY + b"\0" * 2**20, ends.UNREADABLE, "is too large (limit 1048576 bytes)"),
    ],
)
def test_what_is_no_command_is_told(run: Runner, module: bytes, code: int, words: str) -> None:
    ran = run(module)
    assert ended(ran)[0] == code
    assert words in ended(ran)[1]
    assert ran.stdout == b""


@pytest.mark.parametrize(
    "text",
    [
        "(memory 1) (memory 1)",
        "(memory 1 1 shared)",
        "(memory i64 1)",
        "(type (struct))",
        "(func (param v128) (drop (i32x4.relaxed_trunc_f32x4_s (local.get 0))))",
    ],
)
def test_what_is_switched_off_is_invalid(run: Runner, text: str) -> None:
    module = modules.binary(f'(module {text} (func (export "_start")))')
    assert ended(run(module))[0] == ends.INVALID


def test_native_code_compiled_before_is_never_loaded(run: Runner) -> None:
    """What `serialize` made would run as it is, whatever it holds."""
    config = wasmtime.Config()
    config.target = "pulley64"
    artefact = bytes(wasmtime.Module(wasmtime.Engine(config), modules.HELLO).serialize())
    ran = run(artefact)
    assert (ran.returncode, ran.stdout) == (ends.INVALID, b"")


def test_a_missing_or_unreadable_module_is_told(run: Runner) -> None:
    words = command(Options(LIMITS, str(run.directory / "none.wasm")))[1:]
    assert ended(run.raw(*words)) == (
        ends.UNREADABLE,
        f"run-wasm: {run.directory}/none.wasm: No such file or directory",
    )
    words = command(Options(LIMITS, str(run.directory)))[1:]
    assert ended(run.raw(*words)) == (ends.UNREADABLE, f"run-wasm: {run.directory}: Is a directory")


def test_directories_are_seen_read_and_written_as_they_were_given(run: Runner, tmp_path: Path) -> None:
    kept, own = tmp_path / "kept", tmp_path / "own"
    kept.mkdir()
    own.mkdir()
    (kept / "a.txt").write_text("read me")
    (tmp_path / "secret").write_text("not for you")
    given: dict[str, Any] = {"read": (str(kept),), "write": (str(own),)}
    assert run(modules.PREOPENS, **given).stdout.decode().split() == [str(kept), str(own)]
    assert run(modules.show(3, "a.txt"), **given).stdout == b"read me"
    assert run(modules.create(3, "b.txt"), **given).returncode != 0
    assert not (kept / "b.txt").exists()
    assert run(modules.create(4, "b.txt"), **given).returncode == 0, "control"
    assert (own / "b.txt").read_text() == "made"


@pytest.mark.parametrize("path", ["../secret", "link", "/etc/passwd", "sub/../../secret", "absolute"])
def test_nothing_outside_of_its_directories_is_read(run: Runner, tmp_path: Path, path: str) -> None:
    own = tmp_path / "own"
    (own / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("not for you")
    (own / "link").symlink_to("../secret")
    (own / "absolute").symlink_to(tmp_path / "secret")
    assert (own / path).read_text(), "control: a native program reads it"
    ran = run(modules.show(3, path), write=(str(own),))
    assert (ran.stdout, ran.returncode in range(1, 126)) == (b"", True), ran
    (own / "inside").write_text("for you")
    assert run(modules.show(3, "inside"), write=(str(own),)).stdout == b"for you", "control"


def test_without_directories_there_are_none(run: Runner) -> None:
    assert run(modules.PREOPENS).stdout == b""
    assert run(modules.show(3, "etc/passwd")).returncode != 0


def test_one_directory_is_the_point(run: Runner, tmp_path: Path) -> None:
    """C programs look up relative paths below the directory that is called "."."""
    assert run(modules.PREOPENS, write=(str(tmp_path),)).stdout.decode().split() == [str(tmp_path)]
    there = run(modules.PREOPENS, write=(str(tmp_path),), here=str(tmp_path))
    assert there.stdout.decode().split() == [str(tmp_path), "."]


def test_memory_that_may_not_become_executable_suffices(run: Runner) -> None:
    """As under the isolator's MemoryDenyWriteExecute=; the control is native code."""
    run.file.write_bytes(modules.HELLO)
    deny = "import ctypes, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; "
    words = command(Options(LIMITS, str(run.file)))[1:]
    ours = "import runpy; runpy.run_module('clawos.isolator.wasm', run_name='__main__')"
    native = f"import wasmtime as w; w.Module(w.Engine(), open({str(run.file)!r}, 'rb').read())"

    def python(code: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", code, *words], env=ENVIRONMENT, capture_output=True, check=False
        )

    assert python(deny + ours).stdout == b"hello\n"
    assert b"unable to make memory executable" in python(deny + native).stderr
    assert python(native).returncode == 0


def test_every_limit_must_be_given(run: Runner) -> None:
    words = list(command(Options(LIMITS, "/x.wasm"))[1:])
    for at in range(0, len(words) - 1, 2):
        code, line = ended(run.raw(*words[:at], *words[at + 2 :]))
        assert (code, line) == (ends.RUNNER, f"run-wasm: {words[at]}: every limit must be given")
    for wrong in (["--fuel", "-1"], ["--fuel", "1e9"], ["--color", "1"], ["--read", "etc"], ["--fuel"]):
        assert ended(run.raw(*wrong))[0] == ends.RUNNER
    assert ended(run.raw())[1] == "run-wasm: no module is named"


_paths = st.lists(st.text(min_size=1).map(lambda t: "/" + t), max_size=3).map(tuple)


@given(
    numbers=st.tuples(*[st.integers(0, 2 * 1024 * 1024)] * len(Limits.NAMES)),
    read=_paths,
    write=_paths,
    here=st.sampled_from(["", "/home/claw", "/ä b"]),
    arguments=st.lists(st.text(), max_size=5).map(tuple),
)
def test_the_command_line_is_read_as_it_was_written(
    numbers: tuple[int, ...],
    read: tuple[str, ...],
    write: tuple[str, ...],
    here: str,
    arguments: tuple[str, ...],
) -> None:
    limits = Limits(**dict(zip(Limits.NAMES, numbers, strict=True)))
    options = Options(limits, "/m.wasm", arguments, read=read, write=write, here=here)
    program, *words = command(options)
    assert program == PROGRAM
    parsed = parse(words)
    assert vars(parsed) | {"limits": 0} == vars(options) | {"limits": 0}
    assert vars(parsed.limits) == vars(limits)


def test_a_module_s_arguments_are_no_options() -> None:
    words = list(command(Options(LIMITS, "/m.wasm", ("--fuel", "9", "--write", "/etc")))[1:])
    assert parse(words).limits.fuel == LIMITS.fuel
    assert parse(words).write == ()
    with pytest.raises(Usage):
        parse(["--fuel", "9"])


@pytest.mark.parametrize("name", library.SIGNATURES)
def test_declarations_are_those_of_the_package(name: str) -> None:
    """A wrong one would be memory corruption."""
    result, arguments = library.SIGNATURES[name]
    theirs = getattr(declared, f"_{name}")
    assert _kind(result) == _kind(theirs.restype)
    assert [_kind(a) for a in arguments] == [_kind(a) for a in theirs.argtypes]


def _kind(declared_type: Any) -> tuple[str, int]:
    """What the machine passes: nothing, an address, or a number of some size and sign."""
    if declared_type is None:
        return "nothing", 0
    code = getattr(declared_type, "_type_", "P")
    address = not isinstance(code, str) or code in "PzZ" or not issubclass(declared_type, ctypes._SimpleCData)
    return ("address" if address else code, ctypes.sizeof(declared_type))


def test_records_are_laid_out_as_the_package_s() -> None:
    for ours, theirs, fields in (
        (library.Bytes, declared.wasm_byte_vec_t, {"size": "size", "data": "data"}),
        (library.Instance, declared.wasmtime_instance, {"store_id": "store_id"}),
        (library.Extern, declared.wasmtime_extern, {"kind": "kind", "of": "of"}),
    ):
        assert ctypes.sizeof(ours) >= ctypes.sizeof(theirs)
        assert ctypes.alignment(ours) == ctypes.alignment(theirs)
        for our, their in fields.items():
            assert getattr(ours, our).offset == getattr(theirs, their).offset
    assert declared.wasmtime_extern_union.func.offset == declared.wasmtime_extern_union.memory.offset == 0


def test_numbers_of_traps_are_the_package_s() -> None:
    codes = {code.value: code.name for code in wasmtime.TrapCode}
    special = (ends.TRAP_STACK, ends.TRAP_INTERRUPT, ends.TRAP_FUEL)
    assert [codes[n] for n in special] == ["STACK_OVERFLOW", "INTERRUPT", "OUT_OF_FUEL"]
    assert [codes[n] for n in ends.TRAPS] == [
        "MEMORY_OUT_OF_BOUNDS",
        "HEAP_MISALIGNED",
        "TABLE_OUT_OF_BOUNDS",
        "INDIRECT_CALL_TO_NULL",
        "BAD_SIGNATURE",
        "INTEGER_OVERFLOW",
        "INTEGER_DIVISION_BY_ZERO",
        "BAD_CONVERSION_TO_INTEGER",
        "UNREACHABLE",
    ]
    kinds = (ffi.WASMTIME_EXTERN_FUNC.value, ffi.WASMTIME_EXTERN_MEMORY.value)
    assert kinds == (library.EXTERN_FUNC, library.EXTERN_MEMORY)


def test_nothing_heavy_is_imported() -> None:
    """Of what a call costs, most is what Python imports."""
    code = "import sys, clawos.isolator.wasm.__main__; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert not set(ran.stdout.split()) & {
        "msgspec",
        "asyncio",
        "dataclasses",
        "inspect",
        "re",
        "typing",
        "wasmtime",
    }
