"""The sandbox by bubblewrap: the second backend behind the same plan.

An independent implementation, so that a mistake in our own launcher shows as a difference. Bubblewrap makes
the namespaces and the root; `confine/` does before it and inside it what it cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from clawos.core import run
from clawos.core.errors import ClawError
from clawos.isolator.cgroup import Cgroups, Leaf, Spent
from clawos.isolator.config import Config
from clawos.isolator.ending import last_words, outcome, settle
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.handover import make_home, sealed
from clawos.isolator.ids import CallIds, HostIds, host_ids
from clawos.isolator.plan import Allow, Bind, Dir, File, Link, Mount, Plan, Proc, Tmpfs
from clawos.isolator.ports import Outcome, Streams
from clawos.isolator.wire import Refused, Report, Started, decode_report, encode

OLDEST = (0, 12, 0)
"""Before it, making a mount point could follow a link out of the new root and write on the host."""
STAGE = "/mnt"
"""Where `claw-confine outside` puts the home; confine/confine.h has it too."""

_NAMESPACES = ("user", "pid", "ipc", "uts", "cgroup")
"""Named one by one, for --unshare-all does without a user or cgroup namespace where there is none. The mount
namespace is always its own, and the network namespace `claw-confine outside` makes."""
_SYS_OPENAT2 = 437  # one number on every architecture
_WORDS_BYTES = 300
_KILL_GRACE_S = 15
_STEPS = {"namespace": "namespaces", "source": "bind-source", "proc": "proc"}
"""Which part it was, by what bubblewrap calls it."""


def options(plan: Plan, hand_over: Callable[[bytes], int]) -> Iterator[str]:
    """What to tell bubblewrap. `hand_over` gives a descriptor to read a file's content from.

    Raises SandboxRefused for what it cannot set up.
    """
    for namespace in _NAMESPACES:
        yield f"--unshare-{namespace}"
    # As pid 1, for its own would flatten a signal into an exit code. The two capabilities, over the sandbox's
    # namespaces only, let `claw-confine inside` finish the mounts and lock securebits; then it drops them.
    yield from ("--disable-userns", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL")
    yield from ("--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP")
    yield from ("--hostname", plan.hostname, "--chdir", "/")
    binds = {operation.path for operation in plan.operations if isinstance(operation, Bind)}
    for operation in plan.operations:
        match operation:
            case File(path, _, _) if path in binds:
                continue  # bubblewrap makes a bind's mount point itself
            case Dir(path, mode):
                yield from ("--perms", f"{mode:04o}", "--dir", path)
            case File(path, content, mode):
                yield from ("--perms", f"{mode:04o}", "--file", str(hand_over(content)), path)
            case Link(path, target):
                yield from ("--symlink", target, path)
            case Bind(path, _, flags, _):
                yield from (_bind(flags), _source(operation, plan), path)
            case Proc(path):
                yield from ("--proc", path, "--remount-ro", path)
            case Tmpfs(path, _, _):
                if covered := [bind for bind in binds if bind.startswith(f"{path}/")]:
                    raise SandboxRefused("tmpfs", f"bubblewrap cannot show {covered[0]} below {path}")
            case Allow():
                continue
            case _:
                raise SandboxRefused("plan", f"bubblewrap cannot do {type(operation).__name__}")
    yield from ("--remount-ro", "/")


def _bind(flags: Mount) -> str:
    if flags & Mount.DEVICES:
        return "--dev-bind"
    return "--bind" if flags & Mount.WRITE else "--ro-bind"


def _source(bind: Bind, plan: Plan) -> str:
    if bind.source == plan.home:
        return STAGE
    if plan.home and (bind.source == STAGE or bind.source.startswith(f"{STAGE}/")):
        raise SandboxRefused("bind-source", f"{STAGE} is where the home passes through")
    return bind.source


class BubblewrapSandbox:
    """A `Running` for one process of bubblewrap."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reports: asyncio.StreamReader,
        transport: asyncio.ReadTransport,
        leaf: Leaf | None,
        wall_s: float,
        gone: Callable[[], None],
    ) -> None:
        self._process = process
        self._reports = reports
        self._transport = transport
        self._leaf = leaf
        self._gone = gone
        self._landlock_abi = 0
        self._out_of_time = False
        self._deadline = asyncio.get_running_loop().call_later(wall_s, self._expire)

    async def started(self, words: int) -> None:
        """Until the program runs. Raises SandboxRefused. `words` is where bubblewrap complains."""
        report = await self._next_report()
        if isinstance(report, Started):
            self._landlock_abi = report.landlock_abi
            return
        await self._clean_up()
        if isinstance(report, Refused):
            raise SandboxRefused(report.step, report.error)
        if self._out_of_time:
            raise SandboxRefused("set-up", errno.ETIMEDOUT)
        raise _refusal(os.pread(words, _WORDS_BYTES, 0), self._process.returncode)

    async def wait(self) -> Outcome:
        words = await last_words(self._next_report)
        spent = await self._clean_up()
        out_of_time = self._out_of_time and words[0] is None
        return outcome(words, spent, self._leaf, self._landlock_abi, out_of_time=out_of_time)

    def kill(self) -> None:
        if self._leaf is not None:
            with contextlib.suppress(OSError):  # it is being removed
                self._leaf.kill()
            return
        with contextlib.suppress(ProcessLookupError):  # only root may: it is the sandbox's user, not ours
            self._process.kill()

    def _expire(self) -> None:
        self._out_of_time = True
        self.kill()

    async def _next_report(self) -> Report | None:
        line = await self._reports.readline()
        return decode_report(line.decode()) if line else None

    async def _clean_up(self) -> Spent | None:
        self._deadline.cancel()
        try:
            async with asyncio.timeout(_KILL_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        self._transport.close()
        return await settle(self._leaf, self._gone)


class Bubblewrap:
    """A `Sandbox` that starts bubblewrap, one process a call, between the two halves of claw-confine."""

    def __init__(
        self, program: Path, confine: Path, cgroups: Cgroups | None, ids: HostIds | None = None
    ) -> None:
        """`cgroups` None is for unit tests on machines without controllers; `backend.py` never passes it."""
        self._program = program
        self._confine = confine
        self._cgroups = cgroups
        self.uids = CallIds(ids or host_ids(Config()))

    async def check(self) -> None:
        """Is it one that we may trust, and can it work here? Raises SandboxRefused."""
        try:
            said = (await run.run([self._program, "--version"], timeout_s=10)).stdout.decode(errors="replace")
        except OSError as error:
            raise SandboxRefused("bubblewrap", error.errno or errno.EIO) from None
        except ClawError as error:
            raise SandboxRefused("bubblewrap", error.message) from None
        version = re.fullmatch(r"bubblewrap (\d+)\.(\d+)\.(\d+)\n", said)
        if not version or tuple(map(int, version.groups())) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise SandboxRefused(
                "bubblewrap-version", f"{said.strip()!r} is not bubblewrap {oldest} or newer"
            )
        if not _has_openat2():
            raise SandboxRefused("openat2", "a filter on this service blocks the system call")

    async def start(self, call_id: str, plan: Plan, streams: Streams) -> BubblewrapSandbox:
        if plan.proxy:
            raise SandboxRefused("egress", "bubblewrap enters no network namespace that is made ahead")
        make_home(plan)
        async with contextlib.AsyncExitStack() as on_failure:
            uid = self.uids.lend(plan)
            on_failure.callback(self.uids.give_back, plan, uid)
            leaf = await self._cgroups.create(call_id, plan.quota) if self._cgroups else None
            if leaf:
                on_failure.push_async_callback(leaf.remove)
            try:
                words = os.memfd_create("words", os.MFD_CLOEXEC)
                on_failure.callback(os.close, words)
                sandbox = await self._spawn(plan, uid, streams, leaf, words)
            except OSError as error:
                raise SandboxRefused("bubblewrap", error.errno or errno.EIO) from None
            on_failure.pop_all()
        try:
            await sandbox.started(words)
        except asyncio.CancelledError:
            sandbox.kill()
            await sandbox.wait()
            raise
        finally:
            os.close(words)
        return sandbox

    async def close(self) -> None:
        """Nothing is made ahead."""

    async def _spawn(
        self, plan: Plan, uid: int, streams: Streams, leaf: Leaf | None, words: int
    ) -> BubblewrapSandbox:
        with contextlib.ExitStack() as ours:
            given = [streams.stdin, streams.stdout, streams.stderr]

            def give(fd: int) -> int:
                ours.callback(os.close, fd)
                given.append(fd)
                return fd

            reports_fd, status_fd = os.pipe2(os.O_CLOEXEC)
            give(status_fd)
            pipe = os.fdopen(reports_fd, "rb", buffering=0)
            reports = asyncio.StreamReader(limit=4096)
            try:
                transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                    lambda: asyncio.StreamReaderProtocol(reports), pipe
                )
            except BaseException:
                pipe.close()
                raise
            try:
                plan_fd = give(sealed(encode(plan, uid)))
                inner = give(os.open(self._confine, os.O_PATH | os.O_CLOEXEC))
                if leaf:
                    given.append(leaf.fd)
                outside = (plan_fd, status_fd, leaf.fd if leaf else "--test-without-cgroup", plan.home or "-")
                inside = (plan_fd, status_fd, streams.stdin, streams.stdout, streams.stderr)
                command: list[str | Path] = [self._confine, "outside", *map(str, outside), self._program]
                command += options(plan, lambda content: give(sealed(content)))
                command += ["--", f"/proc/self/fd/{inner}", "inside", *map(str, inside)]
                process = await run.spawn(
                    command,
                    # The streams are the program's alone: bubblewrap, which stays, would keep them open.
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=words,
                    env={},
                    pass_fds=given,
                )
            except BaseException:
                transport.close()
                raise
            return BubblewrapSandbox(
                process, reports, transport, leaf, plan.wall_s, lambda: self.uids.give_back(plan, uid)
            )


def _refusal(words: bytes, status: int | None) -> SandboxRefused:
    """Bubblewrap gave up: its first line, made harmless, says why."""
    line = words.decode(errors="replace").partition("\n")[0].removeprefix("bwrap: ")
    said = "".join(c if c.isprintable() else "?" for c in line)
    step = next((step for word, step in _STEPS.items() if word in said), "bubblewrap")
    return SandboxRefused(step, said or f"it ended without a word (status {status})")


def _has_openat2() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(_SYS_OPENAT2, -1, None, None, 0)  # EINVAL: its structure is never empty
    return ctypes.get_errno() == errno.EINVAL
