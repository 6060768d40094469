"""QEMU: find out what the machine can do, and build the command line of a ClawOS guest."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

OVMF = Path("/usr/share/OVMF")
MEMORY_MIB = 2048
CPUS = 2

# mov al,0x2a; out 0xf4,al; hlt — isa-debug-exit turns 0x2a into exit status 0x55
_PROBE_SECTOR = bytes.fromhex("b02ae6f4f4").ljust(510, b"\0") + b"\x55\xaa"
_PROBE_STATUS = 0x2A << 1 | 1


def kvm_works() -> bool:
    """Start a five-byte guest under KVM: a /dev/kvm that exists may still be unusable."""
    if os.environ.get("CLAWOS_ACCEL"):
        return os.environ["CLAWOS_ACCEL"] == "kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with tempfile.NamedTemporaryFile() as sector:
        sector.write(_PROBE_SECTOR.ljust(1440 * 1024, b"\0"))
        sector.flush()
        command = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "64"]
        command += ["-nodefaults", "-display", "none", "-no-reboot", "-boot", "a"]
        command += ["-drive", f"file={sector.name},format=raw,if=floppy,readonly=on"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=15, check=False)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == _PROBE_STATUS


@dataclass
class Guest:
    """What to boot, and with what handed in."""

    directory: Path
    """Where this guest's disk, firmware variables, TPM state and sockets live."""
    image: Path
    credentials: dict[str, bytes] = field(default_factory=dict)
    lockdown: str = "integrity"
    console: str = "file"
    """`file`: logged to console.log and reachable at console.sock; `stdio`: this terminal."""
    disk_bytes: int = 16 << 30
    """Room for a larger model; the file on the host holds only what is written."""
    memory_mib: int = MEMORY_MIB
    share: Path | None = None
    """A folder of the host that the guest sees as a read-only EROFS disk with the label `share`."""

    def path(self, name: str) -> Path:
        return self.directory / name

    def socket(self, name: str) -> Path:
        """A socket of this guest. Not in its folder: the address of a socket has 107 bytes at most."""
        key = hashlib.sha256(str(self.directory).encode()).hexdigest()[:12]
        directory = Path(tempfile.gettempdir()) / f"clawos-vm-{key}"
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.stat().st_uid != os.getuid():
            raise PermissionError(f"{directory} belongs to somebody else")
        return directory / name

    def prepare(self) -> None:
        """Make the guest's own writable parts: a copy-on-write disk and firmware variables."""
        self.directory.mkdir(parents=True, exist_ok=True)
        disk = self.path("disk.qcow2")
        if not disk.exists():
            backing = ["-F", "raw", "-b", str(self.image.resolve())]
            command = ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(disk), str(self.disk_bytes)]
            subprocess.run(command, check=True)
        if not self.path("vars.fd").exists():
            shutil.copy(OVMF / "OVMF_VARS_4M.fd", self.path("vars.fd"))
        if self.share:
            made = self.path("share.erofs")
            made.unlink(missing_ok=True)
            subprocess.run(["mkfs.erofs", "--quiet", "-L", "share", str(made), str(self.share)], check=True)

    def tpm_command(self) -> list[str]:
        state = self.path("tpm")
        state.mkdir(exist_ok=True)
        control = f"type=unixio,path={self.socket('tpm.sock')}"
        return ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", control, "--terminate"]

    def command(self, kvm: bool) -> list[str]:
        c = ["qemu-system-x86_64", "-name", "clawos", "-machine", "q35,smm=off", "-m", str(self.memory_mib)]
        c += ["-smp", str(CPUS), "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none"]
        c += ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
        c += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd"]
        c += ["-drive", f"if=pflash,unit=1,format=raw,file={self.path('vars.fd')}"]
        c += ["-drive", f"if=virtio,format=qcow2,file={self.path('disk.qcow2')},cache=unsafe,discard=unmap"]
        if self.share:
            c += ["-drive", f"if=virtio,format=raw,readonly=on,file={self.path('share.erofs')}"]
        c += [
            "-chardev",
            f"socket,id=tpm,path={self.socket('tpm.sock')}",
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm",
        ]
        c += ["-device", "tpm-crb,tpmdev=tpm0", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        c += ["-chardev", f"socket,id=harness,path={self.socket('harness.sock')},server=on,wait=off"]
        c += ["-device", "virtserialport,chardev=harness,name=clawos.harness"]
        c += ["-monitor", f"unix:{self.socket('monitor.sock')},server=on,wait=off"]
        if self.console == "stdio":
            c += ["-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console"]
        else:
            console = f"socket,id=console,path={self.socket('console.sock')},server=on,wait=off"
            c += ["-chardev", f"{console},logfile={self.path('console.log')}", "-serial", "chardev:console"]
        return c + self._kernel() + self._smbios()

    def _kernel(self) -> list[str]:
        """The UKI carries lockdown=integrity; the kernel can raise that at boot, but never lower it."""
        if self.lockdown != "none":
            return []
        stem = self.image.with_suffix("")
        line = stem.with_suffix(".cmdline").read_text().strip("\0\n").replace("lockdown=integrity", "")
        return ["-kernel", f"{stem}.vmlinuz", "-initrd", f"{stem}.initrd", "-append", line]

    def _smbios(self) -> list[str]:
        strings = [
            f"io.systemd.credential.binary:{name}={base64.b64encode(value).decode()}"
            for name, value in sorted(self.credentials.items())
        ]
        if self.lockdown == "confidentiality":
            strings.append("io.systemd.stub.kernel-cmdline-extra=lockdown=confidentiality")
        arguments: list[str] = []
        for number, text in enumerate(strings):
            # a file and not an argument: credentials are secrets, and argument lists are public
            path = self.path(f"smbios-{number}")
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
                f.write(text)
            arguments += ["-smbios", f"type=11,path={path}"]
        return arguments
