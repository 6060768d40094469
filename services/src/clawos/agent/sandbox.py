"""What is asked of the isolator for one call, and what it answers when the call is over."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from clawos.agent.manifest import Home, Manifest, Network, Runtime
from clawos.core.parse import Record


@dataclass(frozen=True)
class User:
    """Whom a call works for."""

    uid: int
    name: str

    @property
    def home(self) -> str:
        """Their home as a sandbox shows it."""
        return f"/home/{self.name}"


class RunSpec(Record, frozen=True):
    """Specification of one call, as `docs/specs/bus.md` has it."""

    tool: str
    argv: tuple[str, ...]
    runtime: Runtime
    env: dict[str, str]
    stdin: bool
    cwd: str
    home: Home
    home_owner: int
    read: tuple[str, ...]
    sockets: tuple[str, ...]
    groups: tuple[str, ...]
    host_proc: bool
    network: Network
    run_as: str
    quota: str
    seccomp: str
    session: str = ""


class RunResult(msgspec.Struct, frozen=True):
    """The isolator's last word on a call. Fields that a later isolator adds are passed over."""

    exit_code: int | None
    signal: int | str | None
    limit: str | None
    wall_s: float

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and self.signal is None and self.limit is None


def run_spec(
    manifest: Manifest, argv: tuple[str, ...], user: User, *, stdin: bool = False, session: str = ""
) -> RunSpec:
    """The specification for one call of a tool, for a user. The environment is the isolator's own."""
    allowed = manifest.permissions
    return RunSpec(
        tool=manifest.name,
        argv=argv,
        runtime=manifest.runtime,
        env={},
        stdin=stdin,
        # Without its home a sandbox has no such directory to start in.
        cwd="/" if allowed.home is Home.NONE else user.home,
        home=allowed.home,
        home_owner=user.uid,
        read=allowed.read,
        sockets=allowed.sockets,
        groups=allowed.groups,
        host_proc=allowed.host_proc,
        network=allowed.network,
        run_as=allowed.run_as,
        quota=manifest.quota,
        seccomp=manifest.seccomp,
        session=session,
    )
