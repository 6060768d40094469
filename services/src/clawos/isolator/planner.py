"""Looks at a specification and at the machine, and decides: a plan, or SpecInvalid."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from clawos.isolator.config import Config
from clawos.isolator.errors import SandboxRefused, SpecInvalid
from clawos.isolator.plan import (
    LANG,
    OPERATIONS_MAX,
    Access,
    Allow,
    Bind,
    Dir,
    File,
    Link,
    Mount,
    Operation,
    Plan,
    Proc,
    Proxy,
    Tmpfs,
    in_order,
)
from clawos.isolator.python.plan import add_file
from clawos.isolator.quotas import Quota
from clawos.isolator.spec import ANYBODY, Spec
from clawos.isolator.wasm.plan import add_module

# Whatever the configuration says: other rooms' state, and kernel interfaces that the root brings itself.
_NEVER = ("/boot", "/dev", "/proc", "/root", "/run/clawos", "/sys", "/var/lib/clawos")
# Mounted anew for each call, when all else is there already.
_FRESH = ("/tmp", "/dev/shm")  # noqa: S108
_DEVICES = ("full", "null", "random", "urandom", "zero")
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
# What asking for a user takes at most: a file and a socket of each source in nsswitch.conf.
_DESCRIPTORS = 4
_PATH = "/usr/local/bin:/usr/bin:/usr/sbin"


class Planner:
    def __init__(self, config: Config, quotas: Mapping[str, Quota], filters: Mapping[str, bytes]) -> None:
        self._config = config
        self._quotas = quotas
        self._filters = filters

    def plan(self, spec: Spec, proxy: Proxy | None = None) -> Plan:
        """What to do for this call. `proxy`: for one with `network` = egress, where that is.

        Raises SpecInvalid for what no call may have, SandboxRefused where we cannot look at
        the machine.
        """
        _check_descriptors()
        quota = self._named(self._quotas, spec.quota, "quota")
        seccomp_name, seccomp_filter = self._filter(spec, proxy)
        user = self._user(spec)
        name = _owner_name(spec)
        home = f"/home/{name}" if spec.home != "none" else None
        outside = str(self._config.home / str(spec.home_owner)) if home else None
        wanted = _skeleton(quota) | _identity(user, name, home)
        wanted["/proc"] = Bind("/proc", "/proc") if spec.host_proc else Proc("/proc")
        if home and outside:
            write = Mount.WRITE if spec.home == "write" else Mount.READ
            wanted[home] = Bind(home, outside, write)
        self._add_reads(wanted, spec, home)
        self._add_sockets(wanted, spec)
        wall_s = min(spec.wall_s or quota.wall_s, quota.wall_s)
        argv, cwd = spec.argv, spec.cwd or home or "/"
        if spec.runtime == "wasm":
            argv = add_module(wanted, spec, quota.wasm, wall_s, cwd, self._config.wasm)
        elif spec.runtime == "python":
            argv = add_file(wanted, spec, self._config.python)
        _check_parents(wanted)
        operations = (*in_order(wanted), *_landlock(wanted))
        if len(operations) > OPERATIONS_MAX:
            raise SpecInvalid(
                f"spec: read: the paths need {len(operations)} steps, more than {OPERATIONS_MAX}",
                "name the directories above them instead",
            )
        return Plan(
            tool=spec.tool,
            argv=argv,
            env=_environment(name, home) | _way_out(proxy) | spec.env,
            run_as=spec.run_as,
            uid=user.pw_uid,
            has_own_uid=spec.run_as == ANYBODY and not home and not spec.sockets,
            gid=user.pw_gid,
            groups={group: self._gid(group) for group in spec.groups},
            hostname=socket.gethostname()[:64] or "localhost",
            proxy=proxy,
            cwd=cwd,
            stdin=spec.stdin,
            wall_s=wall_s,
            quota_name=spec.quota,
            quota=quota,
            seccomp_name=seccomp_name,
            seccomp_filter=seccomp_filter,
            landlock_min_abi=self._config.landlock_min_abi,
            operations=operations,
            home=outside,
            # What reads variables at its start (linker, locale, malloc) has read them in a copy already.
            zygote=spec.runtime == "python" and spec.zygote and not spec.env,
        )

    @staticmethod
    def _named[T](known: Mapping[str, T], name: str, what: str) -> T:
        if name not in known:
            raise SpecInvalid(f"spec: no {what} is called {name!r}", f"there are: {', '.join(sorted(known))}")
        return known[name]

    def _filter(self, spec: Spec, proxy: Proxy | None) -> tuple[str, bytes]:
        """Its name and its instructions."""
        found = self._named(self._filters, spec.seccomp, "seccomp profile")
        if proxy is None:
            return spec.seccomp, found
        name = f"{spec.seccomp}-egress"
        if name not in self._filters:
            raise SpecInvalid(f"spec: network: the seccomp profile {spec.seccomp!r} knows no way out")
        return name, self._filters[name]

    def _user(self, spec: Spec) -> pwd.struct_passwd:
        # By the program and not by the tool's name, which is the caller's own word.
        programs = self._config.run_as.get(spec.run_as, ())
        if spec.argv[0] not in programs and "*" not in programs:
            raise SpecInvalid(
                f"spec: {spec.argv[0]} may not run as {spec.run_as!r}",
                "see run_as in /etc/clawos/isolator.toml",
            )
        if spec.home != "none" and spec.run_as != ANYBODY:
            raise SpecInvalid(f"spec: a call that runs as {spec.run_as} sees no home")
        if spec.env and spec.run_as != ANYBODY:  # PATH or LD_PRELOAD would make it another program
            raise SpecInvalid(f"spec: a call that runs as {spec.run_as} has no environment of the caller's")
        try:
            user = pwd.getpwnam(spec.run_as)
        except KeyError:
            raise SpecInvalid(f"spec: this machine has no user {spec.run_as!r}") from None
        if not user.pw_uid or not user.pw_gid:
            raise SpecInvalid("spec: nothing runs as root")
        return user

    def _gid(self, group: str) -> int:
        if group not in self._config.groups:
            raise SpecInvalid(f"spec: the group {group!r} is not among groups in /etc/clawos/isolator.toml")
        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            raise SpecInvalid(f"spec: this machine has no group {group!r}") from None

    def _add_reads(self, wanted: dict[str, Operation], spec: Spec, home: str | None) -> None:
        for path in spec.read:
            source = os.path.realpath(path)
            for each in (path, source):
                if not _below(each, self._config.read) or _touches(each, _NEVER):
                    raise SpecInvalid(f"spec: read: {path} is not among read in /etc/clawos/isolator.toml")
            if any(_below(path, (fresh,)) for fresh in _FRESH):
                raise SpecInvalid(f"spec: read: {path} would lie in what is the call's own")
            if home and (_below(home, (path,)) or _below(path, (home,))):
                raise SpecInvalid(f"spec: read: {path} and the home {home} lie in one another")
            if os.path.lexists(source):  # what the machine does not have, the sandbox has not either
                wanted[path] = Bind(path, source, Mount.READ, Path(source).is_dir())

    def _add_sockets(self, wanted: dict[str, Operation], spec: Spec) -> None:
        for path in spec.sockets:
            if path not in self._config.sockets:
                raise SpecInvalid(f"spec: sockets: {path} is not among sockets in /etc/clawos/isolator.toml")
            wanted[path] = Bind(path, os.path.realpath(path), Mount.READ, is_directory=False)


def _check_descriptors() -> None:
    """Where they cannot open a file `pwd` and `grp` answer that there is nobody: it would be half a plan."""
    with contextlib.ExitStack() as taken:
        try:
            for _ in range(_DESCRIPTORS):
                taken.callback(os.close, os.open("/", os.O_PATH | os.O_CLOEXEC))
        except OSError as error:
            raise SandboxRefused("users", error.errno or errno.EIO) from None


def _check_parents(wanted: Mapping[str, Operation]) -> None:
    """Below a link or a file of the sandbox's root nothing can be made: the launcher follows no link."""
    for path in wanted:
        for parent in map(str, Path(path).parents):
            if isinstance(wanted.get(parent), Link | File):
                raise SpecInvalid(f"spec: {path} lies below {parent}, which is no directory in the sandbox")


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _touches(path: str, roots: tuple[str, ...]) -> bool:
    """Is path one of roots, below one, or above one (so that it would bring it along)?"""
    return _below(path, roots) or any(_below(root, (path,)) for root in roots)


def _owner_name(spec: Spec) -> str:
    if spec.home_owner is None:
        return spec.run_as
    try:
        name = pwd.getpwuid(spec.home_owner).pw_name
    except KeyError:
        raise SpecInvalid(f"spec: home_owner: no user has the id {spec.home_owner}") from None
    if not _USER_NAME.match(name):
        raise SpecInvalid(f"spec: home_owner: {name!r} cannot be the name of a directory")
    return name


def _skeleton(quota: Quota) -> dict[str, Operation]:
    """What every sandbox has."""
    wanted: dict[str, Operation] = {
        "/usr": Bind("/usr", "/usr", Mount.EXEC),
        "/tmp": Tmpfs("/tmp", quota.tmp_bytes, Mount.WRITE),  # noqa: S108 # the sandbox's own
        "/dev/shm": Tmpfs("/dev/shm", quota.tmp_bytes, Mount.WRITE),  # noqa: S108
        "/home": Dir("/home"),
        "/run/systemd/system": Dir("/run/systemd/system"),  # sd_booted(3), which systemctl asks
        "/var/tmp": Link("/var/tmp", "../tmp"),  # noqa: S108
        "/dev/fd": Link("/dev/fd", "/proc/self/fd"),
        "/etc/mtab": Link("/etc/mtab", "../proc/self/mounts"),
    }
    for name, target in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        wanted[f"/dev/{name}"] = Link(f"/dev/{name}", f"/proc/self/fd/{target}")
    for name in _DEVICES:
        device = f"/dev/{name}"
        wanted[device] = Bind(device, device, Mount.WRITE | Mount.DEVICES, is_directory=False)
    for path in ("/bin", "/lib", "/lib32", "/lib64", "/sbin", "/etc/localtime", "/etc/os-release"):
        if Path(path).is_symlink():
            wanted[path] = Link(path, str(Path(path).readlink()))
    for path in ("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/os-release"):
        if path not in wanted and Path(path).exists():
            source = os.path.realpath(path)
            wanted[path] = Bind(path, source, Mount.READ, Path(source).is_dir())
    return wanted


def _identity(user: pwd.struct_passwd, name: str, home: str | None) -> dict[str, Operation]:
    """Who one is: the sandbox's user bears the asking person's name, so `whoami` and `ls -l` read well."""
    users = [f"{name}:x:{user.pw_uid}:{user.pw_gid}::{home or '/'}:/bin/sh"]
    users += [
        f"{u.pw_name}:x:{u.pw_uid}:{u.pw_gid}::/:/usr/sbin/nologin"
        for u in pwd.getpwall()
        if u.pw_uid != user.pw_uid
    ]
    groups = [f"{g.gr_name}:x:{g.gr_gid}:" for g in grp.getgrall()]
    host = socket.gethostname() or "localhost"
    files = {
        "passwd": "\n".join(users) + "\n",
        "group": "\n".join(groups) + "\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "hosts": f"127.0.0.1 localhost {host}\n",
        "hostname": host + "\n",
    }
    return {f"/etc/{file}": File(f"/etc/{file}", text.encode()) for file, text in files.items()}


def _environment(name: str, home: str | None) -> dict[str, str]:
    return {
        "PATH": _PATH,
        "HOME": home or "/tmp",  # noqa: S108
        "USER": name,
        "LOGNAME": name,
        "SHELL": "/bin/sh",
        "LANG": LANG,
        "TERM": "dumb",
        "TMPDIR": "/tmp",  # noqa: S108
        "SYSTEMD_PAGER": "",
        "SYSTEMD_COLORS": "0",
    }


def _way_out(proxy: Proxy | None) -> dict[str, str]:
    """In both cases: curl reads http_proxy in small letters only, others only in capitals."""
    names = ("http_proxy", "https_proxy", "all_proxy") if proxy else ()
    return {name: f"http://{proxy}" for each in names for name in (each, each.upper())}


def _landlock(wanted: Mapping[str, Operation]) -> list[Allow]:
    """The second fence says the same as the mounts, from another corner of the kernel."""
    allowed = {"/": Access.LIST, "/etc": Access.READ, "/dev": Access.LIST, "/usr": Access.READ | Access.EXEC}
    for path, operation in wanted.items():
        match operation:
            case Bind(_, _, flags, _) if flags & Mount.DEVICES:
                allowed[path] = Access.READ | Access.WRITE | Access.IOCTL
            case Bind(_, _, flags, _):
                access = Access.READ | (Access.WRITE if flags & Mount.WRITE else Access(0))
                allowed[path] = access | (Access.EXEC if flags & Mount.EXEC else Access(0))
            case Tmpfs():
                allowed[path] = Access.READ | Access.WRITE
            case Proc():
                allowed[path] = Access.READ
    binds = [path for path, operation in wanted.items() if isinstance(operation, Bind)]
    return [
        Allow(path, access)
        for path, access in allowed.items()
        if not any(path != bind and _below(path, (bind,)) for bind in binds)
    ]
