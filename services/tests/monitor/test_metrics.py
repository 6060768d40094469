"""Metrics: their text, the socket they are served on, and the dashboard and alerts that name them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from monitor.conftest import World
from monitor.events import x

from clawos.monitor import cgroups
from clawos.monitor.metrics import counter, one, text
from clawos.monitor.metrics_socket import CONNECTIONS_MAX, MetricsSocket
from clawos.monitor.source import PACKET_COUNTS

DOCS = Path(__file__).parents[3] / "docs" / "monitor"
_SAMPLE = re.compile(r"^([a-z_]+)(\{([a-z_]+=\"(\\.|[^\"\\])*\",?)*\})? -?[0-9.e+-]+$")


def names(written: str) -> set[str]:
    return set(re.findall(r"^# TYPE ([a-z_]+) ", written, re.MULTILINE))


async def test_every_line_is_of_the_format(world: World) -> None:
    world.source.put(x("id"))
    world.source.lost_by_kind["open"] = 2
    lines = world.monitor.metrics().splitlines()
    assert len(lines) > 100
    for line in lines:
        assert line.startswith(("# HELP ", "# TYPE ")) or _SAMPLE.match(line), line
    found = names("\n".join(lines))
    assert {"clawos_events_total", "clawos_events_lost_total", "clawos_xdp_total"} <= found
    assert 'clawos_xdp_total{program="egress",counter="dropped_port"} 2' in lines
    assert 'clawos_denied_total{rule="path:sandbox:/etc/shadow"} 3' in lines
    assert 'clawos_events_lost_total{kind="open"} 2' in lines


def test_packets_are_counted_as_the_kernel_side_has_it() -> None:
    header = (DOCS.parents[1] / "ebpf" / "xdp" / "xdp.h").read_text()
    body = header.split("enum count {")[1].split("}")[0]
    names_there = [line.split(",")[0].strip() for line in body.splitlines() if "," in line]
    assert [name.lower() for name in names_there if name != "COUNTS"] == list(PACKET_COUNTS)


def test_labels_are_escaped() -> None:
    written = text([counter("a_total", "A.", [({"x": 'b"c\\d\ne'}, 1.5)]), counter("b_total", "B.", one(2))])
    assert written.splitlines()[2] == r'a_total{x="b\"c\\d\ne"} 1.5'
    assert written.splitlines()[-1] == "b_total 2"


async def test_the_dashboard_names_only_metrics_that_there_are(world: World) -> None:
    there = names(world.monitor.metrics())
    dashboard = json.loads((DOCS / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for e in expressions for name in re.findall(r"\b(clawos_[a-z_]+|process_[a-z_]+)\b", e)}
    assert used
    assert used - there == set()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


async def test_the_alerts_name_only_metrics_that_there_are(world: World) -> None:
    there = names(world.monitor.metrics())
    expressions = re.findall(r"^\s+expr: (.*)$", (DOCS / "alerts.yml").read_text(), re.MULTILINE)
    used = {name for e in expressions for name in re.findall(r"\b(clawos_[a-z_]+|process_[a-z_]+)\b", e)}
    assert len(expressions) >= 5
    assert used - there == set()


async def test_each_metric_is_on_the_dashboard(world: World) -> None:
    dashboard = (DOCS / "dashboard.json").read_text()
    assert {name for name in names(world.monitor.metrics()) if name not in dashboard} == set()


def cgroup(path: Path, usec: int, memory: int) -> None:
    path.mkdir(parents=True)
    (path / "cpu.stat").write_text(f"usage_usec {usec}\nuser_usec 1\n")
    (path / "memory.current").write_text(f"{memory}\n")


def test_what_services_and_sandboxes_use(tmp_path: Path) -> None:
    cgroup(tmp_path / "clawos-agent.service", 1_500_000, 4096)
    cgroup(tmp_path / "clawos-isolator.service", 2_000_000, 8192)
    cgroup(tmp_path / "clawos-isolator.service" / "call-0123456789abcdef-0", 250_000, 1024)
    (tmp_path / "clawos-isolator.service" / "call-gone").mkdir()
    cgroup(tmp_path / "other.service", 1, 1)
    assert [(u.name, u.cpu_s) for u in cgroups.services(tmp_path)] == [
        ("clawos-agent", 1.5),
        ("clawos-isolator", 2.0),
    ]
    (used,) = cgroups.sandboxes(tmp_path)
    assert (used.name, used.cpu_s, used.memory_bytes) == ("0123456789abcdef-0", 0.25, 1024)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[str]:
    path = tmp_path / "metrics.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.setblocking(False)
    server = MetricsSocket(lambda: "a_total 1\n")
    await server.listen(listening)
    yield str(path)
    await server.close()


async def ask(path: str, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


async def test_over_the_socket(served: str) -> None:
    answer = await ask(served, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=0.0.4" in head
    assert b"Content-Length: 10" in head
    assert body == b"a_total 1\n"
    assert (await ask(served, b"HEAD / HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
    assert b" 404 " in await ask(served, b"GET /etc/passwd HTTP/1.1\r\n\r\n")
    assert b" 405 " in await ask(served, b"POST /metrics HTTP/1.1\r\n\r\n")
    assert b" 405 " in await ask(served, b"nonsense\r\n\r\n")


async def test_a_peer_that_says_too_much_or_nothing_is_left(served: str) -> None:
    assert await ask(served, b"x" * 100_000) == b""
    _, writer = await asyncio.open_unix_connection(served)
    writer.transport.abort()
    silent = [await asyncio.open_unix_connection(served) for _ in range(CONNECTIONS_MAX)]
    await asyncio.sleep(0.1)
    assert await ask(served, b"GET /metrics HTTP/1.1\r\n\r\n") == b"", "as many as may be are there"
    for _, one_writer in silent:
        one_writer.transport.abort()
    await asyncio.sleep(0.1)
    assert b" 200 " in await ask(served, b"GET /metrics HTTP/1.1\r\n\r\n")
