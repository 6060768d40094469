"""Files of Python from the zygote: the same as from a new Python, and behind the same fences."""

from __future__ import annotations

import asyncio
import json
import pwd
import py_compile
import re
import secrets
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from clawos.isolator.errors import SandboxRefused
from clawos.isolator.python.__main__ import MODULES
from clawos.isolator.python.plan import PYTHON
from clawos.isolator.spec import parse

from . import test_sandbox
from .conftest import spec_text
from .python_programs import GIVEN, PROGRAMS
from .pythons import COLD, COPY, NOTHING, TOOLS, ZYGOTE, Pythons, settings, wait_until, written
from .test_differences import LOOK, SPECS, differences
from .test_sandbox import leftovers

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def pythons(
    launcher_path: Path, zygote_path: Path, filters_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pythons]:
    directory = tmp_path_factory.mktemp("python")
    with settings(launcher_path, zygote_path, filters_path, directory) as config, asyncio.Runner() as runner:
        made = Pythons(config, runner)
        yield made
        made.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_copy_does_what_a_new_python_does(pythons: Pythons, name: str) -> None:
    given = dict(GIVEN.get(name, {}))
    arguments = given.pop("arguments", [])
    cold, copy = pythons.both(written(PROGRAMS[name]), *arguments, **given)
    assert copy == cold


def test_what_is_no_text_is_left_to_a_new_python(pythons: Pythons) -> None:
    """An archive with a `__main__`, and a compiled file: their beginnings say so."""
    archive, compiled = TOOLS / "archive.py", TOOLS / "compiled.pyc"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("__main__.py", "import sys; print('from an archive', sys.argv)")
    py_compile.compile(str(written("print('compiled', __file__)")), cfile=str(compiled))
    for file, words in ((archive, b"from an archive"), (compiled, b"compiled")):
        cold, copy = pythons.both(file, "argument")
        assert copy == cold
        assert copy.stdout.startswith(words)


def test_what_cannot_be_read_is_told_as_ever(pythons: Pythons) -> None:
    file = written("print(1)")
    file.chmod(0o600)
    cold, copy = pythons.both(file)
    assert copy == cold
    assert (copy.exit_code, b"can't open file" in copy.stderr) == (2, True)
    file.unlink()


UNIQUE = """
    import json, os, random, secrets, tempfile, uuid, ssl
    generator = random.Random()
    print(json.dumps({
        "random": random.random(), "generator": generator.random(), "sample": random.sample(range(10**6), 3),
        "system": random.SystemRandom().random(), "secrets": secrets.token_hex(), "os": os.urandom(8).hex(),
        "uuid1": uuid.uuid1().hex[-16:], "uuid4": uuid.uuid4().hex, "uuid6": uuid.getnode(),
        "temporary": tempfile.mkdtemp(), "name": next(tempfile._get_candidate_names()),
        "openssl": ssl.RAND_bytes(8).hex(),
        "multiprocessing": __import__("multiprocessing").current_process().authkey.hex(),
    }))
"""
SHARED = 'import json; print(json.dumps([hash("text"), id(json)]))'


def test_nothing_that_is_drawn_is_drawn_twice(pythons: Pythons) -> None:
    file = written(UNIQUE)
    drawn = [pythons.run(COPY, file).json() for _ in range(4)]
    for name in drawn[0]:
        assert len({str(each[name]) for each in drawn}) == len(drawn), name


def test_copies_share_the_hash_secret_and_the_layout(pythons: Pythons) -> None:
    """Not wished, but so: see docs/threat-model.md. It is why a zygote serves for a limited time only."""
    file = written(SHARED)
    assert len({str(pythons.run(COPY, file).json()) for _ in range(3)}) == 1
    assert len({str(pythons.run(COLD, file).json()) for _ in range(3)}) == 3


@pytest.mark.parametrize("name", [*SPECS, "shell"])
def test_every_fence_is_as_for_a_new_python(pythons: Pythons, name: str) -> None:
    """All that `look_around.py` sees: ids, capabilities, filter, mounts, limits, streams, who is in reach."""
    spec: dict[str, Any] = {"seccomp": "python", **cast(Any, SPECS).get(name, {"seccomp": "shell"})}
    cold, copy = (ended.json() for ended in pythons.both(written(LOOK), **spec))
    assert copy["status"]["Seccomp"] == ["2"]
    assert copy["status"]["NoNewPrivs"] == ["1"]
    assert set(copy["status"]["CapEff"] + copy["status"]["CapBnd"]) == {"0" * 16}
    for seen in (cold, copy):
        own = int(seen["id maps"]["uid_map"].pop(1))
        assert own > 0x70000000 or own in (pwd.getpwnam(u).pw_uid for u in ("clawos-sandbox", "clawos-units"))
    assert dict(differences(cold, copy)).keys() == {"status: Name"}
    assert (cold["status"]["Name"], copy["status"]["Name"]) == (["python3"], ["tool.py"])


NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


def test_every_namespace_is_its_own(pythons: Pythons) -> None:
    source = (
        f"import os, json; print(json.dumps({{n: os.readlink('/proc/self/ns/' + n) for n in {NAMESPACES}}}))"
    )
    first, second = (pythons.run(COPY, written(source)).json() for _ in range(2))
    for name in NAMESPACES:
        assert first[name] != str(Path(f"/proc/self/ns/{name}").readlink())
    assert first["net"] != second["net"]


def test_system_calls_are_filtered(pythons: Pythons) -> None:
    """The table of test_sandbox.py, in one call; it has its own positive controls."""
    (table,) = (mark.args[1] for mark in vars(test_sandbox.test_system_calls)["pytestmark"])
    calls = "\n".join(f"answers[{what!r}] = {call}" for what, call, _ in table)
    source = f"{test_sandbox.PROBE}\nanswers = {{}}\n{calls}\nimport json; print(json.dumps(answers))"
    assert pythons.run(COPY, written(source)).json() == {what: answer for what, _, answer in table}


# Looks at all of its own memory. The words that it looks for are put together only there.
MEMORY = """
    import json, re, sys
    word, found, maps = re.compile(b"MARK" + b"ER-[0-9a-f]{16}"), set(), open("/proc/self/maps").read()
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps.splitlines():
            begin, end = (int(n, 16) for n in line.split()[0].split("-"))
            if "r" in line.split()[1] and "[v" not in line:
                memory.seek(begin)
                found.update(m.decode() for m in word.findall(memory.read(end - begin)))
    print(json.dumps([sorted(found), maps]))
"""


def test_nothing_of_one_call_is_in_another(pythons: Pythons) -> None:
    file = written(MEMORY)
    marks = [f"MARKER-{secrets.token_hex(8)}" for _ in range(3)]
    for mark in marks:
        found, maps = pythons.run(COPY, file, mark, stdin=mark).json()
        assert found == [mark], "its own, which shows that looking works"
        assert "claw-python.so" in maps
        assert "memfd" not in maps
        # Private, so that writing to it is writing to a copy; /dev/zero mapped shared would be the exception.
        assert not [line for line in maps.splitlines() if line.split()[1][1:4:2] == "ws"]


def test_the_plan_is_gone_before_the_file_begins(pythons: Pythons) -> None:
    with pythons.started(written("import time; time.sleep(1021)")) as worker:
        init = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        maps = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in (worker, init)}
    assert "memfd:plan" in maps[init], "what it is not told of is there to be seen"
    assert "memfd:plan" not in maps[worker]
    assert "claw-python.so" in maps[worker]


def test_what_one_call_changes_no_other_sees(pythons: Pythons) -> None:
    source = """
        import builtins, gc, json, os, random, sys
        seen = [hasattr(json, "left"), "LEFT" in os.environ, hasattr(builtins, "left"),
                "left" in sys.modules, sys.getrecursionlimit(), os.umask(0o077), os.path.exists("/tmp/left"),
                callable(json.dumps)]
        json.left = builtins.left = sys.modules["left"] = True
        os.environ["LEFT"] = "1"; sys.setrecursionlimit(77); open("/tmp/left", "w").close(); random.seed(1)
        json.dumps = None
        print(repr(seen))
    """
    first, second = (pythons.run(COPY, written(source)).stdout for _ in range(2))
    assert first == second
    assert first.startswith(b"[False, False, False, False, 1000, 18, False, True]")


REACH = """
    import json, os, sys
    answers = {}
    def attempt(name, act):
        try: answers[name] = repr(act())
        except OSError as error: answers[name] = error.strerror
    for pid in sys.argv[1:]:
        for file in ("environ", "mem", "maps", "auxv", "syscall", "stack"):
            attempt(f"{pid} {file}", lambda: open(f"/proc/{pid}/{file}", "rb").read(1))
        for link in ("exe", "cwd", "root", "ns/mnt"):
            attempt(f"{pid} {link}", lambda: os.readlink(f"/proc/{pid}/{link}"))
        attempt(f"{pid} write", lambda: open(f"/proc/{pid}/mem", "r+b").read(1))
        attempt(f"{pid} fd", lambda: os.listdir(f"/proc/{pid}/fd"))
        attempt(f"{pid} signal", lambda: os.kill(int(pid), 0))
        attempt(f"{pid} pidfd", lambda: os.pidfd_open(int(pid)) and "open")
    print(json.dumps(answers))
"""


def test_the_zygote_is_out_of_reach(pythons: Pythons) -> None:
    """Its processes are seen where a tool is shown the machine's /proc, and not touched. Root does both."""
    pythons.run(COPY, NOTHING)
    zygotes = [str(pid) for pid in leftovers(f"/usr/bin/python3\0-IS\0{ZYGOTE}")]
    assert len(zygotes) >= 3, "launcher, spawner, filler"
    file = written(REACH)
    outside = subprocess.run([PYTHON[0], file, *zygotes], capture_output=True, check=True).stdout
    names = json.loads(outside)
    for pid in zygotes:
        assert names[f"{pid} environ"] == "b'L'", "of LANG"
        assert names[f"{pid} signal"] == "None"
    inside = pythons.run(COPY, file, *zygotes, host_proc=True).json()
    assert inside.keys() == names.keys()
    assert set(inside.values()) <= {
        "Permission denied",
        "Operation not permitted",
        "No such process",
        "Function not implemented",
    }, inside
    own = pythons.run(COPY, file, "1").json()
    assert set(own.values()) <= {
        "Permission denied",
        "Operation not permitted",
        "Function not implemented",
    }, own


def test_its_own_environment_is_the_zygotes_and_holds_nothing(pythons: Pythons) -> None:
    ran = pythons.run(COPY, written("print(open('/proc/self/environ', 'rb').read())"))
    assert ran.stdout == b"b'LANG=C.UTF-8\\x00'\n"


def test_the_zygote_has_one_thread(pythons: Pythons, zygote_path: Path) -> None:
    pythons.run(COPY, NOTHING)
    for pid in leftovers(f"/usr/bin/python3\0-IS\0{ZYGOTE}"):
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    source = f"""
import importlib.machinery as machinery, sys, threading
loader = machinery.ExtensionFileLoader("claw_python", {str(zygote_path)!r})
module = loader.create_module(machinery.ModuleSpec("claw_python", loader, origin=loader.path))
if sys.argv[1:]: threading.Thread(target=threading.Event().wait, daemon=True).start()
module.serve([], None, None, None)
"""
    ended = [
        subprocess.run([PYTHON[0], "-c", source, *words], capture_output=True, text=True, check=False)
        for words in ([], ["thread"])
    ]
    assert (ended[0].returncode, ended[0].stderr[:6]) == (2, "usage:"), ended[0]
    assert (ended[1].returncode, "more than one thread" in ended[1].stderr) == (1, True)


def test_no_module_of_the_zygote_draws_secrets_or_starts_anything(pythons: Pythons) -> None:
    names = pythons.run(COPY, written("import sys, json; print(json.dumps(sorted(sys.modules)))")).json()
    assert set(MODULES.split()) <= set(names), "what a copy has"
    assert not {"multiprocessing", "ssl", "_ssl", "ctypes", "asyncio", "concurrent.futures.process"} & set(
        names
    )


def test_other_programs_are_executed_as_the_plan_allows(pythons: Pythons) -> None:
    source = """
        import os, shutil, subprocess
        print(subprocess.run(["true"]).returncode)
        shutil.copy("/usr/bin/true", "/tmp/true")
        try: subprocess.run(["/tmp/true"])
        except PermissionError: print("denied")
    """
    assert pythons.run(COPY, written(source)).stdout == b"0\ndenied\n"


def test_a_refusal_is_the_same(pythons: Pythons) -> None:
    for way in (COLD, COPY):
        with pytest.raises(SandboxRefused) as refused:
            pythons.run(way, written(""), cwd="/nowhere")
        assert (refused.value.step, refused.value.fields["errno"]) == ("cwd", "ENOENT")


def test_the_wall_clock_ends_what_ignores_and_hides(pythons: Pythons) -> None:
    file = written("""
        import os, signal, time
        for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0: os.setsid()
        time.sleep(1023)
    """)
    ended = pythons.run(COPY, file, wall_s=0.5)
    assert (ended.signal, pythons.outcome.out_of_time) == (9, True)
    assert not leftovers(f"/usr/bin/python3\0-IS\0{file}")


def test_it_is_another_user_in_another_sandbox(pythons: Pythons) -> None:
    file = written("import os; print(os.getuid(), os.getgid())")
    for user in map(pwd.getpwnam, ("clawos-sandbox", "clawos-units")):
        ran = pythons.run(COPY, file, run_as=user.pw_name)
        assert ran.stdout.decode().split() == [str(user.pw_uid), str(user.pw_gid)]


def test_without_a_step_there_is_no_call(pythons: Pythons) -> None:
    """The profile `wasm` has no close_range: a copy whose descriptors cannot be closed does not run."""
    plan = pythons.planner.plan(parse(spec_text(str(NOTHING), runtime="python", seccomp="wasm")))
    with pytest.raises(SandboxRefused) as refused:
        pythons.start_copy(plan)
    assert refused.value.step == "close-range"
    assert pythons.run(COPY, NOTHING).exit_code == 0


def test_the_module_is_hardened(zygote_path: Path) -> None:
    told = subprocess.run(
        ["readelf", "-hlWd", zygote_path], capture_output=True, text=True, check=True
    ).stdout
    assert "GNU_RELRO" in told
    assert re.search(r"FLAGS.* NOW", told)
    assert re.search(r"GNU_STACK.* RW ", told)
    assert "libpython" not in told, "it is the system's own Python that loads it"


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        ("clone:error=EAGAIN", "fork"),
        # The first makes descriptors close on an exec that never comes.
        ("close_range:error=EPERM:when=2", "close-range"),
        ("close_range:error=EPERM:when=1", "close-range"),
        ("seccomp:error=ENOMEM", "seccomp"),
        ("seccomp:signal=KILL", "worker"),
    ],
)
def test_a_step_that_fails_is_a_refusal(pythons: Pythons, fault: str, step: str) -> None:
    """In init or in the worker; qa/faults does the same to every call that claw-launch makes."""
    plan = pythons.planner.plan(parse(spec_text(str(NOTHING), runtime="python", seccomp="python")))
    pythons.run(COPY, NOTHING)
    spawner = pythons.spawner()
    with subprocess.Popen(["strace", "-fqq", "-o/dev/null", f"-einject={fault}", f"-p{spawner}"]) as tracer:
        try:
            wait_until(lambda: "TracerPid:\t0" not in Path(f"/proc/{spawner}/status").read_text())
            with pytest.raises(SandboxRefused) as refused:
                pythons.start_copy(plan, is_ready=True)
            assert refused.value.step == step
        finally:
            tracer.terminate()
    assert pythons.run(COPY, NOTHING).exit_code == 0
    assert pythons.spawner() == spawner, "one and the same"
