"""The must-fail list: what a hostile program tries, what the sandbox answers, what root gets outside.

One row is one act of `probe`, one test and one entry of docs/escape.md. The answer outside is the positive
control: the act as it stands works there, or the kernel gets as far as to find fault with arguments that were
chosen not to harm the machine. It is never the sandbox's answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from qa.escape.probe.calls import CLONE_THROUGH_CLONE, FAMILIES, NAMESPACES

SECCOMP = "seccomp"
NO_FAMILY = ("EAFNOSUPPORT", "ESOCKTNOSUPPORT")


@dataclass(frozen=True)
class Row:
    group: str
    act: str
    inside: str
    outside: tuple[str, ...]
    layer: str
    """What gives the answer inside. Often others stand behind it."""

    def __str__(self) -> str:
        return self.act


def _rows(group: str, layer: str, inside: str, outside: str | tuple[str, ...], acts: str) -> list[Row]:
    """One row for each line of `acts`."""
    answers = (outside,) if isinstance(outside, str) else outside
    return [Row(group, act.strip(), inside, answers, layer) for act in acts.strip().splitlines()]


def _words(group: str, layer: str, inside: str, outside: str, acts: str) -> list[Row]:
    return _rows(group, layer, inside, outside, "\n".join(acts.split()))


DENIED = [
    *_words("calls", SECCOMP, "EPERM", "ok", """
        bpf perf_event_open kcmp userfaultfd keyctl add_key chroot open_tree fsopen fspick mount_setattr
        quotactl syslog modify_ldt fanotify_init settimeofday adjtimex clock_adjtime sethostname setdomainname
        vhangup seccomp landlock_create_ruleset capset move_pages memfd_secret personality mount
        name_to_handle_at process_vm_readv process_vm_writev vmsplice splice tee setns ptrace mknod mknodat
        chown lchown fchown fchownat setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid
        setgroups release_agent"""),
    *_words("calls", SECCOMP, "EPERM", "EBADF", """
        process_madvise pidfd_getfd io_uring_enter io_uring_register move_mount fsmount finit_module
        quotactl_fd landlock_add_rule landlock_restrict_self open_by_handle_at"""),
    *_words("calls", SECCOMP, "EPERM", "EINVAL", """
        fsconfig reboot iopl ioperm fanotify_mark clock_settime migrate_pages"""),
    *_words("calls", SECCOMP, "EPERM", "ENOENT", "umount2 delete_module swapon swapoff acct"),
    *_words("calls", SECCOMP, "EPERM", "ENOKEY", "request_key"),
    *_words("calls", SECCOMP, "EPERM", "EBUSY", "pivot_root"),
    *_words("calls", SECCOMP, "EPERM", "ENOEXEC", "init_module"),
    *_words("calls", SECCOMP, "EPERM", "ENOSYS", "lookup_dcookie"),  # the kernel has given it up
]  # fmt: skip
UNNAMED = _words("calls", SECCOMP, "ENOSYS", "ok", """
    clone3 pidfd_open memfd_create shmget semget msgget mq_open""")  # fmt: skip
NEW_NAMESPACES = [
    Row("calls", f"{call} {name}", "ENOSYS" if call == "clone3" else "EPERM", ("ok",), SECCOMP)
    for call in ("unshare", "clone", "clone3")
    for name in NAMESPACES
    if call != "clone" or name in CLONE_THROUGH_CLONE
]
SOCKETS = [
    *(
        Row("calls", f"socket {family}", "EPERM", ("ok", *NO_FAMILY), SECCOMP)
        for family in FAMILIES
        if family != 1  # AF_UNIX, the one that there is
    ),
    *_rows("calls", SECCOMP, "EPERM", ("ok", *NO_FAMILY), """
        socket raw
        socket packet
        socketpair tipc
        socket 64-bit family"""),
]  # fmt: skip
ARGUMENTS = [
    *_rows("calls", SECCOMP, "EPERM", "ok", """
        TIOCSTI
        TIOCSTI 64-bit
        TIOCLINUX
        TIOCLINUX 64-bit
        TIOCSETD
        prctl PR_SET_SECUREBITS
        prctl PR_SET_KEEPCAPS
        prctl PR_SET_PTRACER
        prctl PR_CAP_AMBIENT_CLEAR_ALL
        prctl PR_SET_CHILD_SUBREAPER
        chmod set-user-id
        fchmod set-user-id
        fchmodat set-user-id
        mount cgroup2
        mount proc
        remount root"""),
    *_rows("calls", SECCOMP, "ENOSYS", "ok", "sched_setscheduler"),
    *_rows("calls", "no capabilities", "EPERM", "ok", """
        prlimit64 upwards
        setpriority upwards"""),
    *_rows("calls", "user namespace", "EINVAL", "ok", "credentials of root"),
    *_rows("calls", SECCOMP, "EPERM", "EINVAL", """
        prctl PR_SET_MM
        prctl PR_SET_SECCOMP"""),
    *_rows("calls", SECCOMP, "killed SIGSYS", "ENOSYS", "x32 getpid"),
    *_rows("world", SECCOMP, "killed SIGSYS", "ok", "int 0x80"),
    *_rows("world", SECCOMP, "killed SIGSYS", "absent", "x32"),
]  # fmt: skip
CODE = [
    *_rows("calls", "the unit's MemoryDenyWriteExecute=", "EACCES", "ok", """
        mmap writable and executable
        mprotect executable"""),
    *_rows("files", "noexec mounts", "EACCES", "ok", "run a file of one's own"),
    *_rows("files", "noexec mounts", "EPERM", "ok", "map a file of one's own executable"),
    *_rows("files", "noexec mounts", "cannot be mapped", "ok", "run a file of one's own by ld.so"),
]  # fmt: skip
KERNEL_FILES = [
    *_rows("files", "Landlock", "EACCES", "ok", """
        write core_pattern
        write modprobe
        write sysrq
        write sysrq-trigger
        write poweroff_cmd
        write overcommit_memory
        write ip_forward"""),
    *_rows("files", "/proc is read-only", "EROFS", "ok", """
        write own oom_score_adj
        write own uid_map
        write own setgroups
        write own loginuid
        write own mem
        write own label at exec
        write own label"""),
    *_rows("files", "not in its root", "ENOENT", "ok", """
        write binfmt_misc
        write uevent
        write sysfs
        write cgroup.procs
        read sysfs tree
        read cgroup tree
        read debugfs
        read tracefs
        read securityfs
        read run"""),
    *_rows("files", "owner's rights", "EACCES", "ok", """
        read kcore
        read kernel log
        read passwords"""),
    Row("files", "writable below /proc", "none", (), "/proc is read-only"),
]  # fmt: skip
PID_1 = [
    *_rows("files", "pid 1 is not dumpable", "EACCES", "ok", """
        write memory of pid 1
        read environment of pid 1
        read memory map of pid 1
        read program of pid 1, to read
        read directory of pid 1
        read root of pid 1
        read descriptors of pid 1"""),
    *_rows("files", "pid 1 is not dumpable", "EACCES", "EROFS", "write program of pid 1"),
    *_rows("world", "Landlock", "EPERM", "ok", "signal pid 1"),
]  # fmt: skip
FILES = [
    *_rows("files", "not in its root", "ENOENT", "ok", """
        read state of the services
        read home of root
        read homes on the host
        state by steps up
        state by own root"""),
    *_rows("files", "not in its root", "ENOENT", "ok", """
        device kmsg
        device vda
        device tty0
        device ptmx
        device console
        device tpm0
        device loop-control
        device rtc0
        device hwrng
        device mapper/control
        device net/tun
        device fuse
        device nvram
        device cpu_dma_latency
        create in /var/lib"""),
    # lockdown keeps these two from root as well, but by another answer: there they are
    *_rows("files", "not in its root", "ENOENT", "EPERM", """
        device mem
        device snapshot"""),
    *_rows("files", "not in its root", "ENOENT", "EBUSY", "device virtio-ports/clawos.harness"),
    *_rows("files", "read-only mounts", "EROFS", "ok", """
        create in /etc
        create in /var/log
        create in /home
        create in /dev
        create in /run
        own program"""),
    *_rows("files", "mounts", "EXDEV", "ok", "hard link to a file of the host"),
    Row("files", "descriptors", "none", ("/etc/hostname",), "close_range"),
    Row("files", "working directory", "/home/claw", ("/",), "pivot_root"),
    Row("files", "steps up", "root of the sandbox", ("root of the host",), "pivot_root"),
    Row("files", "steps up from a descriptor", "root of the sandbox", ("root of the host",), "pivot_root"),
    Row("files", "shared mounts", "none", ("shared",), "private propagation"),
]  # fmt: skip
PROCESSES = [
    Row("files", "processes", "own", ("of others",), "pid namespace"),
    *_rows("world", "pid namespace", "ESRCH", "ok", """
        signal a host process
        thread signal to a host process"""),
    Row("world", "reach other processes", "none", (), "pid namespace"),
    Row("world", "cgroup path", "0::/", ("0::/system.slice/clawos-harness.service",), "cgroup namespace"),
]  # fmt: skip
BESIDE = [
    *_rows("world", "network namespace, Landlock", "ECONNREFUSED", "ok", "abstract socket"),
    *_rows("world", "not in its root", "ENOENT", "ok", """
        socket /run/dbus/system_bus_socket
        socket /run/systemd/journal/socket
        socket /run/systemd/journal/stdout
        socket /run/systemd/notify
        socket /run/systemd/private
        socket /run/udev/control
        socket /dev/log
        file in /dev/shm
        file in /tmp
        posix queue"""),
    *_rows("world", "IPC namespace", "none", "some", """
        shared memory segments
        semaphores
        message queues"""),
    Row("world", "keys", "none", ("found",), "user namespace"),
]  # fmt: skip
NETWORK = [
    *_rows("world", SECCOMP, "EPERM", "ok", """
        connect loopback
        connect IPv6 loopback
        connect LAN
        connect IPv6
        connect metadata
        datagram to port 53
        raw packets
        listen for the network"""),
    Row("world", "interfaces", "lo", ("escape0 escape1 lo",), "network namespace"),
]  # fmt: skip

CHAPTERS = {
    "Calls that no tool has any business with": DENIED + UNNAMED,
    "Nested namespaces": NEW_NAMESPACES,
    "Socket families": SOCKETS,
    "Arguments, and other doors to the kernel": ARGUMENTS,
    "Code of one's own": CODE,
    "The kernel's files": KERNEL_FILES,
    "The sandbox's init": PID_1,
    "Files and devices of the host": FILES,
    "Processes of the host": PROCESSES,
    "Sockets, memory and keys of the host": BESIDE,
    "The network": NETWORK,
}
ROWS = [row for chapter in CHAPTERS.values() for row in chapter]
