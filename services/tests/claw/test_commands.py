"""claw's commands, for people and for programs."""

from __future__ import annotations

import json
import pwd
from pathlib import Path

import pytest
from claw.conftest import Run

from clawos.claw import sandbox

pytestmark = pytest.mark.usefixtures("services")


def test_status_shows_services_model_tools_and_memory(claw: Run) -> None:
    shown = claw("status")
    assert shown.returncode == 0
    assert "clawos-agent.service" in shown.stdout
    assert "builtin, loaded" in shown.stdout
    found = json.loads(claw("status", "--json").stdout)
    assert {service["unit"] for service in found["services"]} >= {
        "clawos-agent.service",
        "clawos-isolator.service",
    }
    assert all(
        service["on_bus"] for service in found["services"] if service["unit"] != "clawos-other.service"
    )
    assert found["model"]["model"] == "builtin"
    assert found["agent"]["tools"] == 4
    assert 0 < found["memory"]["available_bytes"] <= found["memory"]["total_bytes"]


def test_tools_lists_and_describes(claw: Run) -> None:
    assert "unit.restart  cautious   Restart a service." in claw("tools").stdout
    assert "unit: string, needed" in claw("tools", "unit.restart").stdout
    assert json.loads(claw("tools", "--json").stdout)[0]["name"] == "unit.restart"
    assert json.loads(claw("tools", "unit.restart", "--json").stdout)["class"] == "cautious"


def test_models_are_added_used_and_removed(claw: Run, tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF" + bytes(1000))
    assert claw("model", "add", str(file)).returncode == 0
    assert (
        claw("model", "add", str(file), "other", "--json").stdout
        == '{\n  "action": "add",\n  "name": "other"\n}\n'
    )
    assert claw("model", "use", "small").returncode == 0
    models = json.loads(claw("model", "list", "--json").stdout)
    assert [(model["name"], model["active"]) for model in models] == [
        ("builtin", False),
        ("small", True),
        ("other", False),
    ]
    assert "*  small    1 kB" in claw("model", "list").stdout
    assert claw("model", "use", "builtin").returncode == 0
    for name in ("small", "other"):
        assert claw("model", "remove", name).returncode == 0
    assert len(json.loads(claw("model", "list", "--json").stdout)) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tools", "no.such"], "there is no tool 'no.such'"),
        (["sandbox", "plan", "no.such"], "there is no tool 'no.such'"),
        (["sandbox", "plan", "file.read"], "data must contain"),
        (["sandbox", "plan", "file.read", "/etc/hosts"], "is not of the form ARG=VALUE"),
        (["sandbox", "learn", "power.off"], "power.off is dangerous"),
        (["model", "use", "nobody"], "there is no model 'nobody'"),
        (["model", "add", "/no/such/file"], "/no/such/file: No such file"),
        (["model", "add", "/etc/passwd", "x"], "no GGUF"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_what_to_do(claw: Run, arguments: list[str], sentence: str) -> None:
    failed = claw(*arguments)
    assert failed.returncode == 1
    assert sentence in failed.stderr
    assert len(failed.stderr.splitlines()) == 2
    error = json.loads(claw(*arguments, "--json").stdout)["error"]
    assert sentence in error["message"]


def test_an_ordinary_user_is_told_to_be_root(claw: Run) -> None:
    failed = claw("model", "list", uid=pwd.getpwnam("nobody").pw_uid)
    assert failed.returncode == 1
    assert "as root" in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["model"],
        ["model", "use"],
        ["sandbox", "plan"],
        ["sandbox", "plan", "a", "--yes"],
        ["status", "--yes"],
        ["status", "--js"],
    ],
)
def test_wrong_usage_is_2(claw: Run, arguments: list[str]) -> None:
    assert claw(*arguments).returncode == 2


def test_a_plan_is_printed_for_people_and_for_programs(claw: Run) -> None:
    shown = claw("sandbox", "plan", "file.read", "path=/etc/hosts")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["file.read:", "/usr/bin/cat", "'\"/etc/hosts\"'"] in lines
    assert ["/usr", "/usr", "read", "exec"] in lines
    assert ["/tmp", "tmpfs", "read", "write,", "16.8", "MB"] in lines
    assert ["memory", "100.7", "MB"] in lines
    assert ["wall", "60", "s"] in lines
    assert ["disk", "134.2", "MB/s"] in lines
    assert [
        "seccomp",
        "profile",
        "shell,",
        "400",
        "instructions;",
        "Landlock",
        "ABI",
        "6",
        "or",
        "later",
    ] in lines
    planned = json.loads(claw("sandbox", "plan", "file.read", "path=/etc/hosts", "--json").stdout)
    assert {"/usr", "/etc", "/proc", "/tmp"} <= {mount["path"] for mount in planned["mounts"]}
    assert planned["limits"]["memory_bytes"] == 100_663_296


def test_values_have_the_type_that_the_tool_says(claw: Run) -> None:
    values = ("path=a=b c", "lines=3", "all=true")
    planned = json.loads(claw("sandbox", "plan", "file.read", *values, "--json").stdout)
    assert planned["argv"] == ["/usr/bin/cat", '"a=b c"', "3", "true"]
    wrong = json.loads(claw("sandbox", "plan", "file.read", "path=x", "lines=many", "--json").stdout)
    assert wrong["argv"][-1] == '"many"', "whether it fits is for the agent to say"


def test_learning_without_systemd_is_a_sentence(claw: Run) -> None:
    failed = claw("sandbox", "learn", "file.read", "path=/etc/hosts")
    assert failed.returncode == 1
    assert "org.freedesktop.systemd1" in failed.stderr


LEARNED = {
    "seccomp": "shell",
    "allowed": [
        {"syscall": "openat", "arguments": {}, "calls": 12},
        {"syscall": "ioctl", "arguments": {"arg1": 0x5401}, "calls": 1},
    ],
    "refused": [{"syscall": "ptrace", "arguments": {}, "calls": 2, "answer": "EPERM"}],
    "unused": ["fork", "link"],
    "lost": 0,
    "result": {"exit_code": 1, "signal": None, "limit": None},
    "stderr": "cannot trace\x1b[31m\n",
}


def test_what_was_learned_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.show_learned(LEARNED)
    assert capsys.readouterr().out.splitlines() == [
        "SYSCALL             CALLS  PROFILE SHELL",
        "ioctl(arg1=0x5401)  1      allowed",
        "openat              12     allowed",
        "ptrace              2      refused: EPERM",
        "",
        "2 system calls used, 1 refused; ended with exit code 1",
        "allowed and not used (2): fork link",
        "",
        "it said:",
        "  cannot trace?[31m",
    ]


def test_doctor_prints_a_verdict_for_each_check_and_fails_if_one_does(claw: Run) -> None:
    done = claw("doctor", "--json")
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert {
        "manifest",
        "lockdown",
        "lsm",
        "sysctl",
        "listeners",
        "disk",
        "tpm",
        "units",
        "cgroup",
    } <= findings.keys()
    assert findings["bus agent"]["verdict"] == "ok"
    assert findings["model"]["sentence"] == "builtin answers; it was ready after 0.5 s"
    # One of the fakes' tools is invalid on purpose.
    assert findings["tools"]["verdict"] == "fail"
    assert "bad.toml" in findings["tools"]["sentence"]
    assert done.returncode == 1
    assert all(finding["advice"] for finding in findings.values() if finding["verdict"] != "ok")


def test_nobody_answers_is_said_in_one_sentence(claw: Run) -> None:
    failed = claw("tools", DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent/bus")
    assert failed.returncode == 1
    assert "no system bus" in failed.stderr
    assert "systemctl status dbus" in failed.stderr
