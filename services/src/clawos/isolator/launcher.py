"""The sandbox by our own launcher: this file and the C beside it are all that touches namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from clawos.core import run
from clawos.isolator.cgroup import Cgroups, Leaf, Spent
from clawos.isolator.config import Config
from clawos.isolator.ending import last_words, outcome, settle
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.handover import make_home, sealed
from clawos.isolator.ids import CallIds, HostIds, host_ids
from clawos.isolator.plan import LANG, Plan
from clawos.isolator.ports import Network, Outcome, Streams
from clawos.isolator.roots import Roots
from clawos.isolator.ways import Ways
from clawos.isolator.wire import Refused, Report, Started, Usage, decode_report, encode

_KILL_GRACE_S = 15
# A sandbox is set up in milliseconds; on a machine that has no time at all, in seconds.
_START_TIMEOUT_S = 60
_STDERR = 2
_REPORT_BYTES = 256
# The launcher ends a builder after 5 s itself.
_ANSWER_TIMEOUT_S = 15
_SYS_LANDLOCK_CREATE_RULESET = 444  # one number on every architecture


class LaunchedSandbox:
    """A `Running` for one sandbox of the spawner's."""

    def __init__(
        self,
        reports: asyncio.StreamReader,
        status: asyncio.StreamWriter,
        leaf: Leaf | None,
        give_up: Callable[[], None],
        silence: Callable[[], SandboxRefused],
        gone: Callable[[], None],
    ) -> None:
        """`give_up` ends the launcher and whatever it runs, should it not answer; `silence` is why it gave no
        answer; `gone`: nothing is left."""
        self._reports = reports
        self._status = status
        self._leaf = leaf
        self._give_up = give_up
        self._silence = silence
        self._gone = gone
        self._giving_up: asyncio.TimerHandle | None = None
        self._landlock_abi = 0

    async def started(self) -> None:
        """Until the program runs. Raises SandboxRefused."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                report = await self._next_report()
        except TimeoutError:
            self._give_up()
            await self.wait()
            raise SandboxRefused("launcher", errno.ETIMEDOUT) from None
        except ValueError as error:
            self.kill()
            await self._clean_up()
            raise SandboxRefused("launcher", str(error)) from None
        if isinstance(report, Started):
            self._landlock_abi = report.landlock_abi
            return
        await self._clean_up()
        if isinstance(report, Refused):
            raise SandboxRefused(report.step, report.error)
        if isinstance(report, Usage) and report.cause == "wall":
            raise SandboxRefused("set-up", errno.ETIMEDOUT)
        raise self._silence()

    async def wait(self) -> Outcome:
        try:
            words = await last_words(self._next_report)
        except ValueError:
            self.kill()
            raise
        finally:
            spent = await self._clean_up()
        _, usage = words
        out_of_time = usage is not None and usage.cause == "wall"
        return outcome(words, spent, self._leaf, self._landlock_abi, out_of_time=out_of_time)

    def kill(self) -> None:
        if self._leaf is not None:
            with contextlib.suppress(OSError):  # it is being removed
                self._leaf.kill()
        with contextlib.suppress(OSError):
            self._status.write_eof()
        if self._giving_up is None:
            self._giving_up = asyncio.get_running_loop().call_later(_KILL_GRACE_S, self._give_up)

    async def _next_report(self) -> Report | None:
        try:
            line = await self._reports.readline()
        except ConnectionError:
            return None
        return decode_report(line.decode()) if line else None

    async def _clean_up(self) -> Spent | None:
        with contextlib.suppress(ConnectionError):
            while await self._reports.read(_REPORT_BYTES):
                pass  # until nothing is left of it
        if self._giving_up is not None:
            self._giving_up.cancel()
        self._status.close()
        return await settle(self._leaf, self._gone)


class Launcher:
    """A `Sandbox` by claw-launch, one long-lived process that starts them all.

    Nothing of Python runs between fork and exec, and nothing in Python ever holds the sandbox's privileges. A
    launcher that ends takes its sandboxes along; the next call starts another.
    """

    def __init__(
        self,
        program: Path,
        cgroups: Cgroups | None,
        ids: HostIds | None = None,
        network: Network | None = None,
        *,
        before: Sequence[str | Path] = (),
        uids: CallIds | None = None,
    ) -> None:
        """`cgroups` None is for unit tests on machines without controllers; `__main__` never passes it.

        `before` stands before it on its command line.
        """
        self._command = (*before, program)
        self._cgroups = cgroups
        self._ids = ids or host_ids(Config())
        self.uids = uids or CallIds(self._ids)
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._last_words = b""
        self._roots: Roots | None = None
        self._network = network
        self._ways: Ways | None = None
        self._starting = asyncio.Lock()
        self._building: set[asyncio.Task[int]] = set()

    def another(self, command: Sequence[str | Path]) -> Launcher:
        """Of the same sandboxes, by another program: no two calls of both have one id."""
        *before, program = command
        return Launcher(Path(program), self._cgroups, self._ids, self._network, before=before, uids=self.uids)

    async def prepare(self, plan: Plan) -> None:
        """Be as ready for calls of this plan as after the first. Raises SandboxRefused, OSError."""
        make_home(plan)
        os.close(await self._root(plan))

    def is_running(self) -> bool:
        return self._control is not None and not self._has_ended()

    async def start(self, call_id: str, plan: Plan, streams: Streams) -> LaunchedSandbox:
        make_home(plan)
        async with contextlib.AsyncExitStack() as on_failure:
            uid = self.uids.lend(plan)
            on_failure.callback(self.uids.give_back, plan, uid)
            leaf = await self._cgroups.create(call_id, plan.quota) if self._cgroups else None
            if leaf:
                on_failure.push_async_callback(leaf.remove)
            try:
                sandbox = await self._run(plan, uid, streams, leaf)
            except OSError as error:
                raise SandboxRefused("launcher", error.errno or errno.EIO) from None
            on_failure.pop_all()
        try:
            await sandbox.started()
        except asyncio.CancelledError:
            sandbox.kill()
            await sandbox.wait()
            raise
        return sandbox

    async def close(self) -> None:
        """End the launcher, once no sandbox is left."""
        if self._building:
            await asyncio.wait(self._building)
        await self._end()

    async def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._roots is not None:
            self._roots.close()
            self._roots = None
        if self._ways is not None:
            await self._ways.close()
            self._ways = None
        if self._process is not None:
            await self._process.wait()

    async def _run(self, plan: Plan, uid: int, streams: Streams, leaf: Leaf | None) -> LaunchedSandbox:
        """Raises SandboxRefused, OSError."""
        async with contextlib.AsyncExitStack() as ours:
            root = await self._root(plan)
            ours.callback(os.close, root)
            plan_fd = sealed(encode(plan, uid))
            ours.callback(os.close, plan_fd)
            network = await self._way(plan)
            for fd in network:
                ours.callback(os.close, fd)
            end, theirs = socket.socketpair()
            with theirs, contextlib.ExitStack() as on_failure:
                on_failure.callback(end.close)
                fds = [plan_fd, theirs.fileno(), streams.stdin, streams.stdout, streams.stderr, root]
                self._send([*fds, *([leaf.fd] if leaf else []), *network])
                reports, status = await asyncio.open_connection(sock=end)
                on_failure.pop_all()
        return LaunchedSandbox(
            reports, status, leaf, self._give_up, self._silence, lambda: self.uids.give_back(plan, uid)
        )

    async def _root(self, plan: Plan) -> int:
        """A descriptor of the plan's root, the caller's to close. Raises SandboxRefused, OSError.

        Whoever is cancelled meanwhile leaves a launcher that starts, or a root that is built, to its end.
        """

        async def get() -> int:
            return await (await self._opened()).get(plan)

        def drop(done: asyncio.Task[int]) -> None:
            if not done.cancelled() and not done.exception():
                os.close(done.result())

        building = asyncio.create_task(get())
        self._building.add(building)
        building.add_done_callback(self._building.discard)
        try:
            return await asyncio.shield(building)
        except asyncio.CancelledError:
            building.add_done_callback(drop)
            raise

    async def _build(self, plan: Plan) -> int:
        """Have the launcher make a plan's root. Raises SandboxRefused, OSError."""
        plan_fd = sealed(encode(plan))
        try:
            (root,) = await self._ask("root", 1, plan_fd)
        finally:
            os.close(plan_fd)
        return root

    async def _lend(self) -> tuple[int, int]:
        """A network namespace of the launcher's and a route socket in it. Raises SandboxRefused, OSError."""
        network, route = await self._ask("network", 2)
        return network, route

    async def _way(self, plan: Plan) -> tuple[int, ...]:
        """The plan's network namespace, if it is to be another than an empty one of the launcher's own."""
        if plan.proxy is None:
            return ()
        assert self._ways is not None, "a plan has a proxy where there is a network room"
        return (await self._ways.take(plan.proxy),)

    async def _ask(self, part: str, count: int, *fds: int) -> list[int]:
        """Have the launcher make a part of a sandbox: descriptors. Raises SandboxRefused, OSError."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                self._send([*fds, theirs.fileno()])
            try:
                await _readable(ours, _ANSWER_TIMEOUT_S)
            except TimeoutError:
                self._give_up()
                raise SandboxRefused("launcher", errno.ETIMEDOUT) from None
            said, made, flags, _ = socket.recv_fds(ours, _REPORT_BYTES, count, socket.MSG_CMSG_CLOEXEC)
        if len(made) == count:
            return made
        for fd in made:
            os.close(fd)
        if flags & socket.MSG_CTRUNC:
            raise SandboxRefused(part, errno.EMFILE)
        report = decode_report(said.decode().partition("\n")[0]) if said else None
        if isinstance(report, Refused):
            raise SandboxRefused(report.step, report.error)
        raise self._silence()

    def _send(self, fds: list[int]) -> None:
        """Raises SandboxRefused, OSError, and then there is no launcher any more."""
        assert self._control is not None
        try:
            socket.send_fds(self._control, [b"\0"], fds)
        except ConnectionError:
            raise self._silence() from None
        except OSError:
            self._give_up()
            raise

    async def _opened(self) -> Roots:
        """The launcher and its roots, started where there is none. Raises OSError."""
        async with self._starting:
            if self._roots is None or self._has_ended():
                await self._end()
                self._process, self._control = await self._spawn()
                self._last_words = b""
                self._roots = Roots(self._build)
                self._ways = Ways(self._lend, self._network) if self._network else None
            return self._roots

    def _has_ended(self) -> bool:
        assert self._control is not None
        for _ in range(2):  # that it has not read all that was asked comes before its words
            try:
                words = self._control.recv(_REPORT_BYTES)
            except BlockingIOError:
                return False
            except ConnectionError:
                continue
            self._last_words = self._last_words or words  # it says nothing but why it ends
            break
        return True

    def _silence(self) -> SandboxRefused:
        """Why a call got no answer."""
        if self._control is not None and self._has_ended() and self._last_words:
            with contextlib.suppress(ValueError):
                report = decode_report(self._last_words.decode())
                if isinstance(report, Refused):
                    return SandboxRefused(report.step, report.error)
        return SandboxRefused("launcher", "it ended without a word")

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)  # a launcher that does not read is one that does not answer
        ids = (self._ids.uid_map, self._ids.gid_map, str(self._ids.init))
        with theirs:
            fd = theirs.fileno()
            without_cgroup = () if self._cgroups else ("--test-without-cgroup",)
            try:
                process = await run.spawn(
                    [*self._command, str(fd), *ids, *without_cgroup],
                    stdout=_STDERR,
                    stderr=_STDERR,
                    env={"LANG": LANG},
                    pass_fds=(fd,),
                )
            except BaseException:
                ours.close()
                raise
        return process, ours

    def _give_up(self) -> None:
        """End the launcher and all its sandboxes; the next call starts another."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


async def _readable(stream: socket.socket, timeout_s: float) -> None:
    """Raises TimeoutError. Not in a thread: where the table of processes is full there is none to be had."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(stream, ready.set)
    try:
        async with asyncio.timeout(timeout_s):
            await ready.wait()
    finally:
        loop.remove_reader(stream)


class LinuxMachine:
    """A `Machine` that asks the kernel."""

    def __init__(self, cgroups: Cgroups | None, backend: str = "launcher") -> None:
        self._cgroups = cgroups
        self._backend = backend

    def backend(self) -> str:
        return self._backend

    def landlock_abi(self) -> int:
        version = 1
        abi: int = ctypes.CDLL(None).syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, version)
        return max(abi, 0)

    def cgroup(self) -> str:
        return str(self._cgroups.base) if self._cgroups else "none"
