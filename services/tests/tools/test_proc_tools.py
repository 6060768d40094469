"""Tools that read /proc, over a small /proc of our own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    files = {
        "uptime": "93784.11 150000.00\n",
        "stat": (
            "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 50 0 50 400 0\ncpu1 50 0 50 400 0\n"
            "intr 1\nbtime 1750000000\n"
        ),
        "loadavg": "0.24 0.50 1.00 1/100 4242\n",
        "sys/kernel/hostname": "claw\n",
        "sys/kernel/osrelease": "6.12.1-test\n",
        "sys/kernel/arch": "x86_64\n",
        "meminfo": (
            "MemTotal:        8000000 kB\nMemFree:         1000000 kB\nMemAvailable:    5500000 kB\n"
            "Buffers:          100000 kB\nCached:          4000000 kB\nSReclaimable:     200000 kB\n"
            "SwapTotal:             0 kB\nSwapFree:              0 kB\n"
        ),
        "cpuinfo": (
            "processor\t: 0\nmodel name\t: Test CPU @ 2.0GHz\ncpu MHz\t\t: 1999.999\ncache size\t: 512 KB\n\n"
            "processor\t: 1\nmodel name\t: Test CPU @ 2.0GHz\ncpu MHz\t\t: 1999.999\ncache size\t: 512 KB\n"
        ),
        "1/net/dev": (
            "Inter-|   Receive                                                |  Transmit\n"
            " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n"
            "    lo:    2048       1    0    0    0     0          0         0     2048       1    0\n"
            "  eth0: 5242880     100    0    0    0     0          0         0   102400      50    0\n"
        ),
        "1/net/route": (
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
            "eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
            "eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        ),
        "1/net/fib_trie": (
            "Main:\n  +-- 0.0.0.0/0 3 0 4\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
            "     |-- 10.0.2.0\n        /24 link UNICAST\n"
            "Local:\n  +-- 0.0.0.0/0 3 0 4\n     |-- 10.0.2.15\n        /32 host LOCAL\n"
            "     |-- 10.0.2.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n"
        ),
        "1/net/if_inet6": (
            "00000000000000000000000000000001 01 80 10 80       lo\n"
            "fe800000000000005054a0fffe123456 02 40 20 80     eth0\n"
        ),
        "1/net/tcp": (
            "  sl  local_address rem_address   st tx_queue rx_queue tr\n"
            "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00\n"
            "   1: 0100007F:0277 00000000:0000 0A 00000000:00000000 00\n"
            "   2: 0F02000A:D431 0802000A:0050 01 00000000:00000000 00\n"
        ),
        "1/net/tcp6": (
            "  sl  local_address                         remote_address                        st\n"
            "   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0\n"
            "   1: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0\n"
        ),
        "1/net/udp": (
            "   sl  local_address rem_address   st tx_queue\n"
            "  10: 00000000:0044 00000000:0000 07 00000000:00000000\n"
        ),
        "partitions": (
            "major minor  #blocks  name\n\n   7        0       1000 loop0\n 253        0   16777216 vda\n"
            " 253        1     294912 vda1\n 253        2     148008 vda2\n 259        0  976762584 nvme0n1\n"
            " 259        1     500000 nvme0n1p1\n  11        0    1048575 sr0\n"
        ),
        "1/mounts": (
            "/dev/vda2 / erofs ro 0 0\nproc /proc proc rw 0 0\n/dev/vda1 /boot\\040disk vfat rw 0 0\n"
            "overlay /etc overlay rw 0 0\n/dev/vda2 /again erofs ro 0 0\n"
        ),
    }
    for name, text in files.items():
        file = tmp_path / "proc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "proc"


def run(tool: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "TZ": "UTC", "LANG": "C.UTF-8", **environment}
    # A session of its own, as in the sandbox: by it "processes" tells its own processes from the others.
    return subprocess.run(
        [TOOLS / tool, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        start_new_session=True,
    )


def said(proc: Path, tool: str) -> str:
    ran = run(tool, CLAWOS_PROC=str(proc))
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_uptime(proc: Path) -> None:
    assert said(proc, "uptime") == "Up 1 day 2 hours 3 minutes, since Sunday 15 June 2025, 15:06.\n"
    (proc / "uptime").write_text("61.5 1\n")
    assert said(proc, "uptime").startswith("Up 1 minute 1 second, since")
    (proc / "uptime").write_text("0.4 1\n")
    assert said(proc, "uptime").startswith("Up 0 seconds, since")


def test_version(proc: Path, tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('PRETTY_NAME="ClawOS 0.1"\nIMAGE_VERSION=7\n')
    ran = run("version", CLAWOS_PROC=str(proc), CLAWOS_OS_RELEASE=str(release))
    assert ran.stdout == "ClawOS 0.1 (image 7)\nLinux kernel 6.12.1-test, x86_64\n"


def test_hostname(proc: Path) -> None:
    assert said(proc, "hostname") == "This machine is called claw.\n"


def test_memory(proc: Path) -> None:
    assert said(proc, "memory").splitlines() == [
        "5.2 GiB of 7.6 GiB memory is free (68 %).",
        "In use: 2.4 GiB. Of what is free, 4.1 GiB holds cached files and is given up when needed.",
        "There is no swap.",
    ]
    meminfo = proc / "meminfo"
    meminfo.write_text(meminfo.read_text().replace("Total:             0", "Total:       1048576"))
    assert said(proc, "memory").endswith("Swap: 0 MiB of 1.0 GiB is free.\n")


def test_load(proc: Path) -> None:
    # A /proc that stands still has nothing to say about business, only about load.
    assert said(proc, "load") == (
        "Load: 0.24 over one minute, 0.50 over five, 1.00 over fifteen; 2 processors.\n"
    )


def test_load_says_how_busy() -> None:
    first, second = run("load").stdout.splitlines()
    assert first.startswith("The processors are ")
    assert 0 <= int(first.split()[3]) <= 100
    assert second.startswith("Load: ")


def test_cpu(proc: Path) -> None:
    assert said(proc, "cpu").splitlines() == ["2 × Test CPU @ 2.0GHz", "Clock: 2.00 GHz now", "Cache: 512 KB"]
    (proc / "cpuinfo").write_text("processor\t: 0\nCPU implementer\t: 0x41\n")
    assert said(proc, "cpu") == "1 × ARM processor (implementer 0x41)\n"


def test_network(proc: Path) -> None:
    assert said(proc, "network").splitlines() == [
        "lo:  127.0.0.1/8  ::1/128",
        "    received 2 KiB, sent 2 KiB",
        "eth0:  10.0.2.15/24  fe80::5054:a0ff:fe12:3456/64",
        "    received 5.0 MiB, sent 100 KiB",
        "Default route: through 10.0.2.2 on eth0",
    ]


def test_network_of_an_unplugged_machine(proc: Path) -> None:
    for name in ("fib_trie", "route", "if_inet6"):
        (proc / "1" / "net" / name).write_text("")
    text = said(proc, "network")
    assert "eth0:  no address" in text
    assert text.endswith("There is no default route: the machine is not connected.\n")


def test_ports(proc: Path) -> None:
    assert said(proc, "ports").splitlines() == [
        "tcp    22  from everywhere (ssh)",
        "tcp   631  from this machine only (printing)",
        "tcp  8080  from this machine only",
        "udp    68  from everywhere (dhcp)",
    ]


def test_disks(proc: Path) -> None:
    assert [line.split(maxsplit=3) for line in said(proc, "disks").splitlines()] == [
        ["NAME", "SIZE", "TYPE", "USED AT"],
        ["vda", "16.0", "GiB", "disk"],
        ["vda1", "288", "MiB", "part     /boot disk (vfat)"],
        ["vda2", "144", "MiB", "part     / (erofs)"],
        ["nvme0n1", "931.5", "GiB", "disk"],
        ["nvme0n1p1", "488", "MiB", "part"],
    ]


def test_accounts(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\n"
        "ann:x:1000:1000:Ann Lee,,,:/home/ann:/usr/bin/clawsh\nbob:x:1001:1001::/home/bob:/bin/sh\n"
        "nobody:x:65534:65534::/:/usr/sbin/nologin\n"
    )
    (tmp_path / "group").write_text("root:x:0:\nclawos-admin:x:990:cleo,ann\nadm:x:4:bob\n")
    ran = run("accounts", CLAWOS_ETC=str(tmp_path))
    assert [line.split() for line in ran.stdout.splitlines()] == [
        ["USER", "ID", "NAME", "SHELL"],
        ["root", "0", "root", "/bin/bash"],
        ["ann", "1000", "Ann", "Lee,", "administrator", "/usr/bin/clawsh"],
        ["bob", "1001", "/bin/sh"],
        ["Beside", "them", "2", "accounts", "of", "services."],
    ]


def test_no_ports(proc: Path) -> None:
    for file in ("tcp", "tcp6", "udp"):
        (proc / "1" / "net" / file).write_text("  sl  local_address\n")
    assert said(proc, "ports") == "No port is open for connections.\n"


@pytest.mark.parametrize("tool", ["memory", "cpu", "network", "ports", "hostname", "disks"])
def test_without_proc_one_clear_sentence(tool: str, tmp_path: Path) -> None:
    ran = run(tool, CLAWOS_PROC=str(tmp_path))
    assert ran.returncode != 0
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1


def test_processes() -> None:
    with subprocess.Popen(["/usr/bin/sleep", "1010.5"]) as other:
        rows = run("processes", "--sort", "memory", "--count", "2").stdout.splitlines()
        other.kill()
    assert rows[0].split() == ["PID", "CPU", "MEMORY", "PROGRAM"]
    # The test and the sleeper at least, and then how many were left out.
    assert len(rows) in (3, 4)
    megabytes = [int(row.split()[3]) for row in rows[1:3]]
    assert megabytes == sorted(megabytes, reverse=True)


def test_processes_by_name(tmp_path: Path) -> None:
    program = tmp_path / "quiet-sleeper"
    program.symlink_to("/usr/bin/sleep")
    with subprocess.Popen([program, "1011.5"], start_new_session=True) as sleeper:
        found = run("processes", "--name", "Quiet-Sleeper").stdout
        sleeper.kill()
    assert [line.split()[0] for line in found.splitlines()[1:]] == [str(sleeper.pid)]
    assert found.splitlines()[1].endswith(f" {program}")
    nobody = run("processes", "--name", "no-such-program").stdout
    assert nobody == "No program called no-such-program is running.\n"


def test_processes_never_tells_what_a_program_was_given() -> None:
    """Not in a row, and not by finding it: a search that answers "there is one" tells as well."""
    command = ["sh", "-c", "sleep 1012.5; : password=hunter2"]
    with subprocess.Popen(command, start_new_session=True) as secretive:
        rows = run("processes", "--count", "500").stdout
        found = run("processes", "--name", "hunter2").stdout
        os.killpg(secretive.pid, signal.SIGKILL)
    assert f"{secretive.pid} " in rows
    assert "hunter2" not in rows
    assert "1012.5" not in rows
    assert found == "No program called hunter2 is running.\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["-m", "waits.here", "secret"], " -m waits.here"),
        (["-u", "-X", "utf8", "-Bm", "waits.here", "secret"], " -m waits.here"),
        (["-c", "import time; time.sleep(60) # -m secret"], ""),
        (["-c", "import time; time.sleep(60)", "-m", "secret"], ""),
    ],
)
def test_processes_names_the_module_of_python(options: list[str], shown: str, tmp_path: Path) -> None:
    python = tmp_path / "python3.13"
    python.symlink_to("/usr/bin/python3")
    (tmp_path / "waits").mkdir()
    (tmp_path / "waits" / "here.py").write_text("import time\ntime.sleep(60)\n")
    with subprocess.Popen([python, *options], cwd=tmp_path, start_new_session=True) as program:
        rows = run("processes", "--name", str(python)).stdout.splitlines()
        program.kill()
    assert [row.split("MiB  ")[1] for row in rows[1:]] == [f"{python}{shown}"]


@pytest.mark.parametrize("arguments", [["--sort", "age"], ["--what", "x"], ["x"]])
def test_processes_refuses_what_it_does_not_know(arguments: list[str]) -> None:
    ran = run("processes", *arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("usage: processes")
