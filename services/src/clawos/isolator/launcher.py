"""The sandbox by our own launcher: this file and the C beside it are all that touches namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
from pathlib import Path

from clawos.core import run
from clawos.isolator.cgroup import Cgroups, Leaf, Spent
from clawos.isolator.errors import SandboxRefused
from clawos.isolator.handover import make_home, sealed
from clawos.isolator.plan import Plan
from clawos.isolator.ports import Outcome, Streams
from clawos.isolator.wire import Exited, Refused, Report, Started, Usage, decode_report, encode

_KILL_GRACE_S = 15
_SYS_LANDLOCK_CREATE_RULESET = 444  # one number on every architecture


class LaunchedSandbox:
    """A `Running` for one process of claw-launch."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reports: asyncio.StreamReader,
        transport: asyncio.ReadTransport,
        leaf: Leaf | None,
    ) -> None:
        self._process = process
        self._reports = reports
        self._transport = transport
        self._leaf = leaf
        self._landlock_abi = 0

    async def started(self) -> None:
        """Until the program runs. Raises SandboxRefused."""
        try:
            report = await self._next_report()
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
        raise SandboxRefused("launcher", f"it ended without a word (status {self._process.returncode})")

    async def wait(self) -> Outcome:
        exited: Exited | None = None
        usage: Usage | None = None
        try:
            while (report := await self._next_report()) is not None:
                if isinstance(report, Exited):
                    exited = report
                elif isinstance(report, Usage):
                    usage = report
        except ValueError:
            self.kill()
            raise
        finally:
            spent = await self._clean_up()
        # Without a word from the sandbox's init it was killed as a whole: by a limit, by us, by the kernel.
        status = exited.wait_status if exited else int(signal.SIGKILL)
        return Outcome(
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            out_of_time=usage is not None and usage.cause == "wall",
            out_of_memory=spent.out_of_memory if spent else False,
            out_of_pids=spent.out_of_pids if spent else False,
            cpu_s=spent.cpu_s if spent else usage.cpu_s if usage else 0.0,
            peak_memory_bytes=spent.peak_memory_bytes if spent else usage.peak_bytes if usage else 0,
            landlock_abi=self._landlock_abi,
            cgroup_id=self._leaf.id if self._leaf else 0,
        )

    def kill(self) -> None:
        if self._leaf is not None:
            with contextlib.suppress(OSError):  # it is being removed
                self._leaf.kill()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    async def _next_report(self) -> Report | None:
        line = await self._reports.readline()
        return decode_report(line.decode()) if line else None

    async def _clean_up(self) -> Spent | None:
        try:
            async with asyncio.timeout(_KILL_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._transport.close()
        if self._leaf is None:
            return None
        try:
            return self._leaf.spent()
        finally:
            await self._leaf.remove()


class Launcher:
    """A `Sandbox` that starts claw-launch, one short-lived process a call.

    Nothing of Python runs between fork and exec, and nothing in Python ever holds the sandbox's privileges.
    """

    def __init__(self, program: Path, cgroups: Cgroups | None) -> None:
        """`cgroups` None is for unit tests on machines without controllers; `__main__` never passes it."""
        self._program = program
        self._cgroups = cgroups

    async def start(self, call_id: str, plan: Plan, streams: Streams) -> LaunchedSandbox:
        make_home(plan)
        leaf = await self._cgroups.create(call_id, plan.quota) if self._cgroups else None
        try:
            sandbox = await self._spawn(plan, streams, leaf)
        except BaseException as error:
            if leaf:
                await leaf.remove()
            if isinstance(error, OSError):
                raise SandboxRefused("launcher", error.errno or errno.EIO) from None
            raise
        try:
            await sandbox.started()
        except asyncio.CancelledError:
            sandbox.kill()
            await sandbox.wait()
            raise
        return sandbox

    async def _spawn(self, plan: Plan, streams: Streams, leaf: Leaf | None) -> LaunchedSandbox:
        with contextlib.ExitStack() as ours:
            plan_fd = sealed(encode(plan))
            ours.callback(os.close, plan_fd)
            reports_fd, status_fd = os.pipe2(os.O_CLOEXEC)
            ours.callback(os.close, status_fd)
            pipe = os.fdopen(reports_fd, "rb", buffering=0)
            reports = asyncio.StreamReader(limit=4096)
            try:
                transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                    lambda: asyncio.StreamReaderProtocol(reports), pipe
                )
            except BaseException:
                pipe.close()
                raise
            cgroup = str(leaf.fd) if leaf else "--test-without-cgroup"
            try:
                process = await run.spawn(
                    [self._program, str(plan_fd), str(status_fd), cgroup],
                    stdin=streams.stdin,
                    stdout=streams.stdout,
                    stderr=streams.stderr,
                    env={},
                    pass_fds=(plan_fd, status_fd, *((leaf.fd,) if leaf else ())),
                )
            except BaseException:
                transport.close()  # a launcher that nobody hears ends
                raise
            return LaunchedSandbox(process, reports, transport, leaf)


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
