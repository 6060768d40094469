"""The monitor's user side on the booted image: what people see of a call, what an alert does, new rules."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qa.conftest import Call
from qa.vm.machine import Output

Run = Callable[..., Output]

OWN = "/etc/clawos/detect.d/test.toml"
RULE = """[[rule]]
id = "test-marker"
title = "The marker of a test was read"
severity = "high"
attack = ["T1005"]
kinds = ["open"]
scope = "sandbox"
match.path = { suffix = "/monitor-test-marker" }
message = "{who} read {path}"
react = ["alert", "kill"]
"""
METRICS = "/run/clawos/metrics.sock"


def put(root: Run, path: str, text: str) -> None:
    assert root(f"cat >{path} <<'END OF FILE'\n{text}\nEND OF FILE").status == 0


def until(is_so: Callable[[], Any], timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return so


def claw(root: Run, *arguments: str) -> Any:
    done = root(shlex.join(["claw", *arguments, "--json"]))
    assert done.status == 0, done.text + done.stderr.decode()
    return json.loads(done.text)


def events(root: Run, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = claw(root, "events", "--limit", "2000", *arguments)
    return found


def last_trace(root: Run) -> dict[str, Any]:
    """Of the last call of anybody's."""
    name, path = "org.clawos.Monitor1", "/org/clawos/Monitor1"
    reply = root(f"busctl -j call {name} {path} {name} Trace s '{{}}'")
    found: dict[str, Any] = json.loads(json.loads(reply.text)["data"][0])
    return found


@pytest.fixture
def own_rule(root: Run) -> Iterator[None]:
    put(root, OWN, RULE)
    assert claw(root, "rules", "--reload")["rules"] > 100
    yield
    root(f"rm -f {OWN}; claw rules --reload")


def test_it_runs_without_a_capability_and_in_little_memory(root: Run) -> None:
    pid = root("systemctl show -P MainPID clawos-monitor").text.strip()
    status = dict(
        line.split(":\t", 1) for line in root(f"cat /proc/{pid}/status").text.splitlines() if ":\t" in line
    )
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert int(status["VmRSS"].split()[0]) < 64 * 1024
    assert root("systemctl is-active clawos-monitor-load clawos-monitor clawos-monitor.socket").status == 0


def test_a_call_is_seen_with_tool_files_and_programs(call: Call, root: Run) -> None:
    ran = call("shell.run", command="cat /etc/hostname >monitor-test; id -u")
    assert ran.exit_code == 0, ran
    assert until(lambda: last_trace(root)["tool"] == "shell.run" and last_trace(root)["programs"])
    found = last_trace(root)
    programs = [ran["args"][0] for ran in found["programs"]]
    assert {"cat", "id"} <= {program.rpartition("/")[2] for program in programs}, found
    assert "/etc/hostname" in found["files"]["read"], found["files"]
    assert any(path.endswith("/monitor-test") for path in found["files"]["written"]), found["files"]
    of_call = events(root, "--call", found["call"])
    assert {event["tool"] for event in of_call} == {"shell.run"}
    assert {event["call"] for event in of_call} == {found["call"]}
    execs = [event for event in of_call if event["kind"] == "exec" and event["path"].endswith("/id")]
    assert execs
    assert execs[0]["ancestors"]


def test_an_ordinary_call_raises_no_alert(call: Call, root: Run) -> None:
    """The setting-up of a sandbox, above all: its launcher mounts, unshares and changes ids."""
    for tool, arguments in (
        ("shell.run", {"command": "ls -l /usr/bin | sort | tail -3; echo x >y; rm y"}),
        ("python.run", {"code": "import json; print(json.dumps([1]))"}),
        ("disk.usage", {}),
        ("file.read", {"path": "/etc/hostname"}),
    ):
        assert call(tool, arguments).exit_code == 0
        assert until(lambda tool=tool: last_trace(root)["tool"] == tool), tool  # type: ignore[misc]
        told = claw(root, "alerts", "--severity", "medium", "--call", last_trace(root)["call"])
        assert told == [], [(alert["rule"], alert["message"]) for alert in told]


def test_clawsh_traces_the_users_own_call(user: Callable[..., Output]) -> None:
    assert user("--session", "traced", "-c", "!cat /etc/os-release").status == 0

    def shown() -> str:
        return user("--session", "traced", "-c", "/trace last").text

    assert until(lambda: "/etc/os-release" in shown()), shown()
    assert "shell.run" in shown()
    assert "/etc/os-release" in user("-c", "/trace").text, (
        "without a session of its own, the user's last call"
    )
    assert "ran " in shown()


def test_events_are_followed(root: Run, call: Call) -> None:
    command = "claw events --follow --json --kind exec >/run/followed.jsonl"
    root(f"systemd-run -q --unit=test-follow sh -c {shlex.quote(command)}")
    try:
        assert until(
            lambda: claw(root, "top")["processes"] and root("test -e /run/followed.jsonl").status == 0
        )
        time.sleep(2)
        assert call("shell.run", command="/usr/bin/uname -r").exit_code == 0
        assert until(lambda: "/uname" in root("cat /run/followed.jsonl").text)
        lines = [json.loads(line) for line in root("cat /run/followed.jsonl").text.splitlines()]
        assert {line["kind"] for line in lines} <= {"exec", "alert"}
    finally:
        root("systemctl stop test-follow; rm -f /run/followed.jsonl")


def test_an_alert_ends_the_sandbox(own_rule: None, call: Call, root: Run) -> None:
    before = call("shell.run", command="sleep 2; echo lived")
    assert (before.exit_code, before.stdout) == (0, "lived\n"), "control: nothing ends it"
    ran = call(
        "shell.run", command="cat /etc/monitor-test-marker; cd; : >monitor-test-marker; sleep 60; echo lived"
    )
    assert ran.limit == "monitor", ran
    assert "lived" not in ran.stdout
    assert ran.wall_s < 20
    (alert,) = [alert for alert in claw(root, "alerts") if alert["rule"] == "test-marker"]
    assert [(one["kind"], one["done"]) for one in alert["reactions"]] == [("kill", True)]
    assert alert["tool"] in ("shell.run", "")
    assert alert["message"].endswith("/monitor-test-marker")
    journal = root(f"journalctl -b -q -o json CLAWOS_ALERT={alert['id']}").text
    assert json.loads(journal.splitlines()[0])["CLAWOS_RULE"] == "test-marker"
    assert (
        root(f"journalctl -b -q CLAWOS_CALL={alert['call']} -u clawos-isolator").text.count(
            "ended by the monitor"
        )
        == 1
    )


def test_a_rule_that_is_wrong_changes_nothing(own_rule: None, root: Run) -> None:
    rules = len(claw(root, "rules"))
    put(root, OWN, RULE.replace("suffix", "sufix"))
    failed = root("claw rules --reload")
    assert failed.status == 1
    assert f"{OWN}, line 8" in failed.stderr.decode(), failed.stderr
    assert len(claw(root, "rules")) == rules
    assert "test-marker" in [rule["id"] for rule in claw(root, "rules")]
    root("systemctl restart clawos-monitor")
    assert until(lambda: root("claw rules >/dev/null").status == 0)
    assert len(claw(root, "rules")) == rules - 1, "after a start, those that were shipped are in force"


def test_a_session_is_frozen_and_thawed(user: Callable[..., Output], root: Run) -> None:
    assert user("--session", "frozen", "-c", "!true").status == 0
    assert until(lambda: last_trace(root)["session"])
    session = last_trace(root)["session"]
    name, path = "org.clawos.Agent1", "/org/clawos/Agent1"
    frozen = root(f"busctl call {name} {path} {name} Freeze ss {session} 'test: it did'")
    assert frozen.status == 0, frozen.stderr
    try:
        refused = user("--session", "frozen", "-c", "!true")
        assert refused.status == 1
        assert "frozen: test: it did" in refused.stderr.decode()
        assert [one["session"] for one in claw(root, "session", "list")] == [session]
    finally:
        assert root(f"claw session thaw {session}").status == 0
    assert user("--session", "frozen", "-c", "!true").status == 0


def test_metrics_over_the_socket(root: Run) -> None:
    code = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/clawos/metrics.sock');"
        "s.sendall(b'GET /metrics HTTP/1.1\\r\\n\\r\\n'); s.settimeout(30);"
        "print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
    )
    told = root(f"python3 -I -c {shlex.quote(code)}").text
    assert told.startswith("HTTP/1.1 200 OK")
    assert 'clawos_service_memory_bytes{service="clawos-monitor"}' in told
    assert root(f"stat -c '%U %G %a' {METRICS}").text.strip() == "root clawos-admin 660"
    assert "clawos_events_total" in root("claw metrics").text


def test_killed_it_comes_back_and_goes_on(call: Call, root: Run) -> None:
    before = root("systemctl show -P NRestarts clawos-monitor").text.strip()
    assert root("systemctl kill -s KILL clawos-monitor").status == 0
    assert call("shell.run", command="/usr/bin/uname -s").exit_code == 0
    assert until(lambda: root("claw rules >/dev/null").status == 0)
    assert int(root("systemctl show -P NRestarts clawos-monitor").text) == int(before) + 1
    seen = until(
        lambda: [e for e in events(root, "--kind", "exec") if e["path"].endswith("/uname") and e["call"]]
    )
    assert seen, "what happened meanwhile waited in the ring"
