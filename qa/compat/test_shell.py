"""Ordinary programs under the profile `shell`: what they print outside, they print inside."""

from __future__ import annotations

import pwd
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from qa.compat.sandbox import USER, Sandbox

CASES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("shell.toml").read_text())
RUN_AS = "clawos-sandbox"
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "GIT_CONFIG_NOSYSTEM": "1"}


def outside(shell: str, script: str) -> tuple[int, str, str]:
    """As the sandbox's user, in a home of the sandbox's name so that paths read the same."""
    who = pwd.getpwnam(RUN_AS)
    with tempfile.TemporaryDirectory(prefix="clawos-control-") as home:
        subprocess.run(["chown", RUN_AS, home], check=True)
        done = subprocess.run(
            [
                "setpriv",
                f"--reuid={who.pw_uid}",
                f"--regid={who.pw_gid}",
                "--clear-groups",
                shell,
                "-c",
                script,
            ],
            cwd=home,
            env={"HOME": home, "TMPDIR": home, "PATH": "/usr/bin:/usr/sbin", **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout.replace(home, "HOME"), done.stderr.replace(home, "HOME")


@pytest.mark.parametrize("name", CASES)
async def test_it_prints_the_same_inside_and_outside(sandbox: Sandbox, name: str) -> None:
    case: dict[str, Any] = {"shell": "/bin/sh", **CASES[name]}
    wanted = outside(case["shell"], case["script"])
    assert wanted[1], "the control prints something"
    ran = await sandbox.run(
        case["shell"], "-c", case["script"], seccomp="shell", read=["/etc"], env=ENVIRONMENT
    )
    home = f"/home/{USER.pw_name}"
    found = (ran.exit_code, ran.stdout.replace(home, "HOME"), ran.stderr.replace(home, "HOME"))
    assert found == wanted
