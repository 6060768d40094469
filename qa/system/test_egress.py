"""The way from a sandbox to the egress service: through it, and to nothing else.

A listener stands in the place of the egress service, let in as that will be: by a socket unit that joins the
namespace of clawos-network. The machine of the tests has no network card: a namespace beside it is its LAN,
with a gateway, a name server and a metadata service that the machine itself does reach.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qa.conftest import Call, Ran
from qa.vm.machine import Output

pytestmark = pytest.mark.usefixtures("unwatched")

Run = Callable[..., Output]

STAND_IN = Path("services/tests/isolator/stand_in_proxy.py")
PROXY, PORT, OTHER_PORT = "198.19.255.1", 8118, 9999
HOST, GATEWAY, METADATA = "10.0.2.15", "10.0.2.2", "169.254.169.254"
AHEAD = 2
PINNED = "/sys/fs/bpf/clawos/egress_xdp"
IN_SEGMENT = "nsenter -t $(systemctl show -P MainPID clawos-network) -n"

SOCKET_UNIT = f"""[Unit]
After=clawos-network.service
JoinsNamespaceOf=clawos-network.service
[Socket]
ListenStream={PROXY}:{PORT}
PrivateNetwork=yes
Service=test-egress.service
"""
SERVICE_UNIT = """[Service]
ExecStart=/usr/bin/python3 -I /run/test-egress.py
"""
MANIFEST = """name = "test.fetch"
description = "Run Python with the way out."
class = "safe"
argv = ["/usr/bin/python3", "-I", "-c", "{code}"]
quota = "medium"
seccomp = "python"
[permissions]
network = "egress"
[arguments]
type = "object"
additionalProperties = false
required = ["code"]
[arguments.properties.code]
type = "string"
maxLength = 4096
"""
# The machine's neighbour: what listens there, and on the machine itself.
LISTENERS = f"""import selectors, socket, sys
ends = selectors.DefaultSelector()
for port in (80, {PORT}, {OTHER_PORT}):
    ends.register(socket.create_server(("0.0.0.0", port)), selectors.EVENT_READ)
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("0.0.0.0", 53))
ends.register(names, selectors.EVENT_READ)
open(sys.argv[1], "w").close()
while True:
    for key, _ in ends.select():
        if key.fileobj is names:
            names.sendto(b"name", names.recvfrom(512)[1])
        else:
            key.fileobj.accept()[0].close()
"""
LAN = f"""ip netns add lan
ip link add lan0 type veth peer name eth0 netns lan
ip addr add {HOST}/24 dev lan0; ip link set lan0 up
ip -n lan addr add {GATEWAY}/24 dev eth0; ip -n lan addr add {METADATA}/32 dev eth0
ip -n lan link set eth0 up; ip -n lan link set lo up; ip -n lan route add default via {HOST}
ip route add {METADATA}/32 via {GATEWAY}
"""


def put(root: Run, path: str, text: str) -> None:
    assert root(f"cat >{path} <<'END OF FILE'\n{text}\nEND OF FILE").status == 0


def until(is_so: Callable[[], bool], timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return so


@pytest.fixture(scope="module", autouse=True)
def proxy(root: Run) -> Iterator[None]:
    """As the later egress service: it lives in the machine's network, only its listening socket does not."""
    put(root, "/run/test-egress.py", STAND_IN.read_text())
    put(root, "/run/systemd/system/test-egress.socket", SOCKET_UNIT)
    put(root, "/run/systemd/system/test-egress.service", SERVICE_UNIT)
    started = root("systemctl daemon-reload && systemctl start test-egress.socket test-egress.service 2>&1")
    assert started.status == 0, started.text
    yield
    root("systemctl stop test-egress.socket test-egress.service; rm /run/systemd/system/test-egress.*")
    root("systemctl daemon-reload; systemctl restart clawos-network")


@pytest.fixture(scope="module", autouse=True)
def lan(root: Run) -> Iterator[None]:
    put(root, "/run/listeners.py", LISTENERS)
    assert root(f"set -e; {LAN}").status == 0
    for where, name in (("", "here"), ("ip netns exec lan", "lan")):
        root(f"systemd-run -q --unit=test-{name} {where} python3 -I /run/listeners.py /run/test-{name}.up")
    assert until(lambda: root("ls /run/test-here.up /run/test-lan.up").status == 0)
    yield
    root("systemctl stop test-here test-lan; ip netns del lan; ip link del lan0; rm -f /run/test-*.up")


@pytest.fixture(scope="module", autouse=True)
def manifest(root: Run) -> Iterator[None]:
    put(root, "/etc/clawos/tools.d/test.fetch.toml", MANIFEST)
    yield
    root("rm /etc/clawos/tools.d/test.fetch.toml")


@pytest.fixture
def fetch(call: Call) -> Callable[[str], Ran]:
    """Run Python in a sandbox with the way out."""
    return lambda code: call("test.fetch", code=code)


Fetch = Callable[[str], Ran]

GET = "import urllib.request as r; print(r.urlopen('http://example.org/page', timeout=30).read().decode())"


def got(ran: Ran) -> bool:
    return ran.outcome == (0, "") and ran.stdout.startswith("GET http://example.org/page from 198.18.")


def links(root: Run) -> list[str]:
    shown = json.loads(root(f"{IN_SEGMENT} ip -j link").text)
    return [link["ifname"] for link in shown if link["ifname"] != "lo"]


def test_a_tool_that_declares_it_fetches_through_the_proxy(fetch: Fetch, root: Run) -> None:
    first, second = fetch(GET), fetch(GET)
    assert got(first), first
    assert got(second), second
    assert first.stdout != second.stdout, "each call has an address of its own"
    planned = json.loads(root("claw sandbox plan --json test.fetch code=pass").text)
    assert planned["network"] == f"{PROXY}:{PORT}"
    assert planned["filters"]["seccomp"] == "python-egress"


def test_the_listener_stands_in_the_machines_network(root: Run) -> None:
    pid = root("systemctl show -P MainPID test-egress").text.strip()
    assert root(f"readlink /proc/{pid}/ns/net /proc/1/ns/net | uniq | wc -l").text.strip() == "1"
    assert root(f"{CONNECT.format(PROXY, PORT)}").status != 0, "its socket does not"


PYTHON = "timeout 60 python3 -I -c "
CONNECT = PYTHON + "'import socket; socket.create_connection((\"{}\", {}), 5)'"
ASK_NAME = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b"x", ("{}", 53)); assert s.recv(9) == b"name"
"""
OPEN = "socket.create_connection(('{}', {}), 5)"
ACTS = {
    "LAN, web": OPEN.format(GATEWAY, 80),
    "LAN, the proxy's port": OPEN.format(GATEWAY, PORT),
    "metadata": OPEN.format(METADATA, 80),
    "metadata, the proxy's port": OPEN.format(METADATA, PORT),
    "the machine's address": OPEN.format(HOST, OTHER_PORT),
    "the machine's address, the proxy's port": OPEN.format(HOST, PORT),
    "the machine's loopback": OPEN.format("127.0.0.1", PORT),
    "name server": ASK_NAME.format(GATEWAY),
    "name server of the machine": ASK_NAME.format(HOST),
    "IPv6": "socket.socket(socket.AF_INET6).connect(('::1', 0)) if 0 else socket.socket(socket.AF_INET6)",
    "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "MPTCP": "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
    "fast open": f"socket.socket().sendto(b'x', socket.MSG_FASTOPEN, ('{HOST}', {OTHER_PORT}))",
    "listen": "socket.create_server(('0.0.0.0', 7777))",
}


@pytest.mark.parametrize("act", ACTS)
def test_act_fails_inside_and_works_outside(fetch: Fetch, root: Run, act: str) -> None:
    code = f"import socket\n{ACTS[act]}\nprint('done')"
    control = root(PYTHON + shlex.quote(code))
    assert control.text == "done\n", control.stderr.decode()
    ran = fetch(code)
    assert ran.exit_code == 1, ran
    assert "done" not in ran.stdout


def test_no_path_without_egress(call: Call) -> None:
    none = call("python.run", code=f"import socket\n{OPEN.format(PROXY, PORT)}")
    assert none.exit_code == 1
    assert "PermissionError" in none.stderr
    assert "proxy" not in call("python.run", code="import os; print(*os.environ)").stdout


@contextmanager
def sleeping(root: Run, count: int = 1) -> Iterator[list[str]]:
    """Calls that run: what enters the network namespace of each, where root has no other fence before him."""
    program = Path("qa/vm/call_tool.py").read_text()
    put(root, "/run/call_tool.py", program)
    arguments = shlex.quote(json.dumps({"code": "import time; time.sleep(600)"}))
    units = [f"test-sleeper-{n}" for n in range(count)]
    for unit in units:
        command = f"python3 -I /run/call_tool.py test.fetch {arguments} claw {{}}"
        root(f"systemd-run -q --unit={unit} {command}")

    def pids() -> list[str]:
        return root("pgrep -f '^/usr/bin/python3 -I -c import time; time.sleep'").text.split()

    try:
        assert until(lambda: len(pids()) == count), root("journalctl -n 20 -u test-sleeper-0").text
        yield [f"nsenter -t {pid} -n" for pid in pids()]
    finally:
        root(f"systemctl stop {' '.join(units)}")
        assert until(lambda: not pids())


def address_in(root: Run, inside: str) -> str:
    shown = json.loads(root(f"{inside} ip -j -4 addr show eth0").text)
    return str(shown[0]["addr_info"][0]["local"])


# Whatever answers of these, all tried at the same time: each that does not takes its five seconds.
REACHED = """
import concurrent.futures, socket
def reach(end):
    try:
        socket.create_connection(end, 5)
        return True
    except OSError:
        return False
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    print([end for end, is_there in zip({0}, pool.map(reach, {0})) if is_there])
"""
REPLIED = """
import select, socket
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for address in {0}:
    try:
        asker.sendto(b"x", (address, 53))
    except OSError:
        pass
print([asker.recvfrom(9) for _ in select.select([asker], [], [], 5)[0]])
"""


def test_the_namespace_holds_without_any_other_fence(root: Run) -> None:
    """Root of the machine inside, without Landlock and filter, and even with a default route."""
    with sleeping(root) as (inside,):
        assert root(f"{inside} ip route add default via {PROXY} dev eth0 onlink").status == 0
        others = [
            (address, port)
            for address in (GATEWAY, METADATA, HOST, "1.1.1.1")
            for port in (80, PORT, OTHER_PORT)
        ]
        ends = [(PROXY, PORT), *others, (PROXY, OTHER_PORT), (PROXY, 22)]
        assert root(f"{inside} {PYTHON}{shlex.quote(REACHED.format(ends))}").text == f"{[(PROXY, PORT)]}\n"
        act = REPLIED.format((GATEWAY, PROXY, HOST))
        assert root(f"{inside} {PYTHON}{shlex.quote(act)}").text == "[]\n"
        assert json.loads(root(f"{inside} ip -j addr show dev eth0").text)[0]["addr_info"][1:] == []
        shown = root(f"{inside} ip -j link").text
        assert {link["ifname"] for link in json.loads(shown)} == {"lo", "eth0"}


def test_a_foreign_source_address_is_dropped(root: Run) -> None:
    with sleeping(root, 2) as (inside, victim):
        own, foreign = address_in(root, inside), address_in(root, victim)
        root(f"{inside} ip addr add {foreign}/32 dev eth0")
        act = f"import socket; socket.create_connection(('{PROXY}', {PORT}), 5, ('{{}}', 0))"
        assert root(f"{inside} {PYTHON}{shlex.quote(act.format(own))}").status == 0, "positive control"
        assert root(f"{inside} {PYTHON}{shlex.quote(act.format(foreign))}").status != 0


def test_sandboxes_do_not_reach_each_other(root: Run) -> None:
    with sleeping(root, 2) as (inside, other):
        there = address_in(root, other)
        listen = f"import socket; s = socket.create_server(('0.0.0.0', {PORT})); s.accept()"
        root(f"systemd-run -q --unit=test-inner {other} {PYTHON}{shlex.quote(listen)}")
        reach = CONNECT.format(there, PORT)
        root(f"{inside} ip route add {there}/32 dev eth0")
        assert root(f"{inside} {reach}").status != 0
        assert until(lambda: root(f"{other} {reach}").status == 0), "positive control"
        root("systemctl stop test-inner")


@pytest.fixture
def restarted(root: Run) -> Iterator[None]:
    yield
    root("systemctl unmask --runtime clawos-network; systemctl reset-failed clawos-network")
    root("systemctl restart clawos-network")


@pytest.mark.usefixtures("restarted")
def test_without_the_network_room_calls_are_refused_by_name(root: Run, fetch: Fetch) -> None:
    assert got(fetch(GET))
    root("systemctl mask --runtime --now clawos-network")
    root("systemctl restart clawos-isolator")
    refused = fetch(GET).refused
    assert "egress" in refused
    assert "org.clawos.Network1 does not answer" in refused
    root("systemctl unmask --runtime clawos-network")
    assert got(fetch(GET)), "it is started by the call"


def test_a_killed_network_room_comes_back(root: Run, fetch: Fetch) -> None:
    assert got(fetch(GET))
    root("systemctl kill -s KILL clawos-network")

    # One that was made ahead may serve until the next is asked for, and the room, back again, drops the rest.
    def is_whole() -> bool:
        return got(fetch(GET)) and until(lambda: len(links(root)) == AHEAD, 5)

    assert until(is_whole), "links of before are gone"


@pytest.mark.usefixtures("restarted")
@pytest.mark.parametrize("change", ["delete table inet clawos", "add rule inet clawos input accept"])
def test_without_its_rules_calls_are_refused_by_name(root: Run, fetch: Fetch, change: str) -> None:
    assert got(fetch(GET))
    assert root(f"{IN_SEGMENT} nft {change}").status == 0
    assert until(lambda: not links(root))
    assert "the rules between sandboxes and the egress service were changed" in fetch(GET).refused
    root("systemctl restart clawos-network")
    assert got(fetch(GET))


def test_a_full_segment_refuses_by_name(root: Run, fetch: Fetch) -> None:
    before = root("cat /etc/clawos/network.toml").text
    try:
        root("echo 'sandboxes_max = 1' >> /etc/clawos/network.toml; systemctl restart clawos-network")
        with sleeping(root):
            assert "1 sandboxes are attached, and no more may be" in fetch(GET).refused
        assert got(fetch(GET))
    finally:
        put(root, "/etc/clawos/network.toml", before)
        root("systemctl restart clawos-network")


def test_the_pinned_program_sees_every_link(root: Run, fetch: Fetch) -> None:
    """The monitor's, which lets the way to the proxy pass. Others, and what does not fit: tests/network."""
    assert got(fetch(GET))
    shown = json.loads(root(f"{IN_SEGMENT} ip -j link").text)
    programs = {link["xdp"]["prog"]["id"] for link in shown if link["ifname"] != "lo"}
    assert len(programs) == 1
    assert root(f"rm {PINNED}").status != 0, "the guard keeps it"


MANY = """
import asyncio, json, os, sys
from clawos.core.bus import Bus
async def main(count, network):
    bus = await Bus.connect()
    spec = {"tool": "test.many", "argv": ["/usr/bin/true"], "seccomp": "shell", "network": network}
    for _ in range(int(count)):
        nothing = os.open(os.devnull, os.O_RDONLY)
        _, *streams = await bus.call("org.clawos.Isolator1", "Run", json.dumps(spec), fds=(nothing,))
        with os.fdopen(streams.pop()) as result:
            told = json.loads(await asyncio.to_thread(result.read))
        assert told["exit_code"] == 0, told
        for fd in (nothing, *streams):
            os.close(fd)
asyncio.run(main(*sys.argv[1:]))
"""


def many(root: Run, count: int, network: str) -> None:
    done = root(f"python3 -I - {count} {network} <<'END OF FILE'\n{MANY}\nEND OF FILE")
    assert done.status == 0, done.stderr.decode()


def namespaces(root: Run) -> int:
    return len(root("lsns -n -t net -o NS").text.split())


def test_fifty_calls_leave_nothing(root: Run, fetch: Fetch) -> None:
    root("systemctl restart clawos-isolator")
    many(root, 1, "none")
    before = namespaces(root)
    many(root, 50, "egress")
    assert until(lambda: len(links(root)) == AHEAD), links(root)
    assert until(lambda: namespaces(root) <= before + AHEAD), "lsns shows those ahead, by their descriptors"
    root("systemctl restart clawos-isolator")
    assert until(lambda: not links(root)), "what was ahead goes with who made it"


def test_nothing_was_refused_that_is_needed(root: Run) -> None:
    denied = root("journalctl -b -k -o cat --grep 'apparmor=\"DENIED\"' | grep -v fsuid=0").text
    assert denied == ""
