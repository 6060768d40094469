"""The agent is down, away, or not for this user: one sentence, the unit, and what to do."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from clawsh.conftest import CLAWSH, SOURCES, Log, Run
from clawsh.terminal import Terminal

from clawos.clawsh import trouble

Start = Callable[..., Terminal]


@pytest.fixture
def no_agent(environment: dict[str, str], bus_without_agent: str) -> dict[str, str]:
    environment["DBUS_SYSTEM_BUS_ADDRESS"] = bus_without_agent
    return environment


def test_names_the_unit_when_the_agent_is_down(no_agent: dict[str, str], clawsh: Run) -> None:
    for text in ("how much memory is free?", "!true", "/tools"):
        done = clawsh("-c", text)
        words = done.stderr.decode()
        assert done.returncode == 1
        assert words.count("clawos-agent.service") == 1
        assert "systemctl status clawos-agent" in words
        assert "journalctl -u clawos-agent" in words
        assert "Traceback" not in words


def test_says_so_in_json(no_agent: dict[str, str], clawsh: Run) -> None:
    event = json.loads(clawsh("--json", "-c", "hello").stdout)
    assert (event["type"], event["name"]) == ("error", "org.clawos.Error.Unavailable")


def test_without_a_bus_it_names_dbus(clawsh: Run) -> None:
    done = clawsh("-c", "hello", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent/bus")
    assert done.returncode == 1
    assert "systemctl status dbus" in done.stderr.decode()


def test_the_shell_lives_on_and_offers_an_administrator_a_way_out(
    no_agent: dict[str, str], terminal: Start
) -> None:
    t = terminal()
    t.expect("clawos-agent.service")
    t.expect("/rescue")
    t.prompt()
    t.type("hello\r")
    t.expect("does not answer")
    t.prompt()
    t.type("/rescue\r")
    t.expect("no sandbox")
    t.type("echo $0; exit 5\r")
    t.expect("sh")
    assert t.exit_code() == 5


def test_the_rescue_shell_is_not_for_ordinary_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [1000])
    assert not trouble.is_administrator()


def test_there_is_no_rescue_shell_without_a_terminal(clawsh: Run) -> None:
    done = clawsh("-c", "/rescue")
    assert done.returncode == 1
    assert "at a terminal" in done.stderr.decode()


def test_a_user_outside_the_group_is_told_so(log: Log, environment: dict[str, str], tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    become = (
        "import grp, json, os, sys; sys.argv = ['clawsh', '-c', 'hello'];"
        "from clawos.clawsh import main, shell, home, trouble;"
        f"os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid});"
        "raise SystemExit(main.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", become], env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert "usermod -aG clawos" in done.stderr.decode()


def test_no_model_code_and_no_line_editor_for_one_command(log: Log, environment: dict[str, str]) -> None:
    program = (
        "import sys; from clawos.clawsh.main import main; code = main(['clawsh', '-c', '!true']);"
        "print(','.join(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=60, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.decode().strip().split(",")}
    heavy = {
        "llama_cpp",
        "llguidance",
        "numpy",
        "torch",
        "jinja2",
        "prompt_toolkit",
        "asyncio",
        "dbus_fast",
        "msgspec",
    }
    assert not loaded & heavy
    assert not [name for name in done.stdout.decode().split(",") if name.startswith("clawos.inference")]


def test_the_sources_import_no_other_room() -> None:
    for room in ("clawsh", "claw"):
        for path in (SOURCES / "clawos" / room).glob("*.py"):
            imported = [
                line.split()[1]
                for line in path.read_text().splitlines()
                if line.strip().startswith("from clawos.")
            ]
            assert {name.split(".")[1] for name in imported} <= {room, "core"}, path


def test_is_a_login_shell_by_any_of_its_names(no_agent: dict[str, str], terminal: Start) -> None:
    t = terminal("--login", TERM="dumb")
    t.expect("ClawOS ")
    t.prompt()
    assert CLAWSH[-1] == "clawos.clawsh"
    t.type("exit\n")
    assert t.exit_code() == 0
