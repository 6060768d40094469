"""A plan as bubblewrap's command line, as a careful user of it would write one."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from clawos.isolator.plan import Bind, Dir, File, Link, Mount, Plan, Proc, Tmpfs

_ETC = PurePosixPath("/etc")


def write_etc(plan: Plan, directory: Path) -> Path:
    """The plan's /etc, made once: the peers bind it as a whole, which costs them less than file by file."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    for operation in plan.operations:
        path = PurePosixPath(operation.path)
        if _ETC not in path.parents:
            continue
        inside = directory / path.relative_to(_ETC)
        match operation:
            case File(_, content, mode) if content:
                inside.write_bytes(content)
                inside.chmod(mode)
            case Link(_, target):
                inside.symlink_to(target)
            case Bind(_, source, _, is_directory):
                # What is bound is read-only anyway: a copy is the same to who reads it.
                if inside.exists():
                    inside.unlink() if inside.is_file() else inside.rmdir()
                if is_directory:
                    shutil.copytree(source, inside, symlinks=True)
                else:
                    shutil.copyfile(source, inside)
            case _:
                pass
    return directory


def command(bwrap: Path, plan: Plan, etc: Path, *more: str) -> tuple[str, ...]:
    """All that bubblewrap has: every namespace, no nested ones, no capabilities, a session of its own."""
    words = [str(bwrap), "--unshare-all", "--unshare-user", "--unshare-cgroup", "--disable-userns"]
    words += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    words += ["--uid", str(plan.uid), "--gid", str(plan.gid), "--hostname", plan.hostname]
    for name, value in plan.env.items():
        words += ["--setenv", name, value]
    words += ["--ro-bind", str(etc), "/etc"]
    for operation in plan.operations:
        parts = PurePosixPath(operation.path).parts
        if parts[1:2] in (("etc",), ("dev",)):
            continue  # the one is bound, the other is what bwrap's --dev makes
        match operation:
            case Dir(path, mode):
                words += ["--perms", f"{mode:04o}", "--dir", path]
            case Link(path, target):
                words += ["--symlink", target, path]
            case Bind(path, source, flags, _):
                words += ["--bind" if flags & Mount.WRITE else "--ro-bind", source, path]
            case Tmpfs(path, size_bytes, _):
                words += ["--perms", "1777", "--size", str(size_bytes), "--tmpfs", path]
            case Proc(path):
                words += ["--proc", path]
            case _:
                pass
    words += ["--dev", "/dev", "--remount-ro", "/", "--chdir", plan.cwd, *more, "--"]
    return (*words, *plan.argv)
