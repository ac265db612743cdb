"""The image that every machine's disk begins as: a Debian of this machine's release, with systemd, made by debootstrap.

One rule: an image is named by a digest of everything that it is made from, so it is made once and never changed; and
there is one at a time. A machine is told who it is by its kernel's command line, so that all share the image.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local import errors
from deploy.vmlab import initial, plan

DISK_GB: Final = 6
"""The host stores only what is written."""
PACKAGES: Final = (
    "ca-certificates",
    "curl",
    "dbus",  # systemctl asks over it
    "iproute2",
    "kmod",  # the network's modules
    "nftables",
    "openssh-server",
    "procps",
    "python3",  # Debian's own images for clouds have it, too
    "python3-venv",
    "systemd-sysv",
    "udev",  # finds the network card
)
"""What an ordinary server has. Orch's own dependencies come with Orch."""
_TIMEOUT_S: Final = 1200
_SOURCES: Final = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")
_TOOLS: Final = {"debootstrap": "debootstrap", "mke2fs": "e2fsprogs", "ssh-keygen": "openssh-client"}
"""By name, with the Debian package that has it."""

_NETWORK: Final = """\
# The address comes with the kernel's command line, which systemd-network-generator makes a file of.
[Match]
Name=en*

[Network]
DHCP=no
"""
_SSHD: Final = """\
# The laboratory's own key alone. Without PAM a login starts no session, which an emulated processor takes seconds for.
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
"""
_MASKED: Final = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "serial-getty@ttyS0.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-logind.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp-runlevel.service",
)
"""What a machine without a network, a screen or a long life need not begin with; emulated, it takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A finished image's folder."""

    folder: Path

    @property
    def disk(self) -> Path:
        """An ext4 file system, to be read only."""
        return self.folder / "root.ext4"

    @property
    def boot(self) -> Path:
        """The kernel's first file system."""
        return self.folder / "boot.cpio"

    @property
    def key(self) -> Path:
        """The private key that opens every machine."""
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        """The machines' own key, for ssh(1)."""
        return self.folder / "known_hosts"


def ensure(places: plan.Places, say: Callable[[str], None]) -> Image:
    """The image, which is made when there is none for what it would be made from. LocalError when it cannot be."""
    wanted = places.cache / f"image-{_digest()}"
    if not wanted.exists():
        _check_tools()
        places.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_others(places.cache)
        say(f"making an image of Debian {_release()} in {places.cache}: once, for a few minutes")
        with _stage(places.cache) as stage:
            _make(stage, places.cache / "packages", say)
            stage.rename(wanted)
    return Image(folder=wanted)


def _digest() -> str:
    """Of everything that the image depends on; packages are as new as the day on which it is made."""
    said = (_release(), initial.kernel().name, Path(__file__).read_text(), Path(initial.__file__).read_text())
    return hashlib.sha256("\0".join(said).encode()).hexdigest()[:16]


def _release() -> str:
    """The code name of this machine's Debian: what `make bundle` fetches fits that one."""
    system = platform.freedesktop_os_release()
    if system["ID"] != "debian":
        raise errors.LocalError(f"the laboratory is made of Debians, on a Debian; this is {system['PRETTY_NAME']}")
    return system["VERSION_CODENAME"]


def _check_tools() -> None:
    if os.geteuid() != 0:
        raise errors.LocalError("the laboratory needs root: it makes file systems and links", hint="run it with sudo")
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise errors.LocalError(f"{tool} is not on PATH", hint=f"apt-get install {package}")


def _remove_others(cache: Path) -> None:
    """Images of another day, and what is left of one that was broken off."""
    for path in cache.glob("image-*"):
        shutil.rmtree(path)


@contextmanager
def _stage(cache: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=cache, prefix="image-making-") as folder:
        stage = Path(folder, "image")
        stage.mkdir()
        yield stage


def _make(stage: Path, packages: Path, say: Callable[[str], None]) -> None:
    root = stage / "root"
    packages.mkdir(exist_ok=True)
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}", f"--cache-dir={packages}"]
    _run("debootstrap", *options, _release(), str(root), *_mirror())
    say("the packages are there; writing the disk")
    image = Image(folder=stage)
    _add_kernel(root)
    _configure(root)
    _add_keys(root, image)
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(root), str(image.disk), f"{DISK_GB}G")
    initial.write_boot(image.boot)
    shutil.rmtree(root)


def _mirror() -> list[str]:
    """Where this machine's own configuration of apt has Debian from; nothing leaves it to debootstrap."""
    files = [Path(_SOURCES[0]), *sorted(Path(_SOURCES[1]).glob("*"))]
    return mirrors("\n".join(file.read_text() for file in files if file.is_file()))[:1]


def mirrors(sources: str) -> list[str]:
    """The archives of Debian itself that a sources.list(5) names, in either of its forms."""
    lines = [line for line in sources.splitlines() if not line.lstrip().startswith("#")]
    return re.findall(r"\S+://\S*/debian/?(?=\s|$)", "\n".join(lines))


def _add_kernel(root: Path) -> None:
    """The modules. The kernel itself is given to qemu, so that no boot loader is needed."""
    (modules,) = initial.KERNEL.glob("lib/modules/*")
    shutil.copytree(modules, root / "usr/lib/modules" / modules.name, symlinks=True)
    _run("chroot", str(root), "depmod", modules.name)


def _configure(root: Path) -> None:
    hosts = "".join(f"{machine.address} {machine.name}\n" for machine in plan.MACHINES)
    _write(root / "etc/hosts", f"127.0.0.1 localhost\n{hosts}")
    _write(root / "etc/hostname", "")
    _write(root / "etc/machine-id", "")
    _write(root / "etc/fstab", "/dev/vda / ext4 noatime,noinit_itable 0 0\n")
    _write(root / "etc/systemd/network/90-none.network", _NETWORK)
    _write(root / "etc/ssh/sshd_config.d/laboratory.conf", _SSHD)
    _run("chroot", str(root), "systemctl", "enable", "systemd-networkd", "systemd-network-generator", "ssh")
    _run("chroot", str(root), "systemctl", "mask", *_MASKED)
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()


def _add_keys(root: Path, image: Image) -> None:
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "laboratory", "-f", str(image.key))
    _write(root / "root/.ssh/authorized_keys", image.key.with_suffix(".pub").read_text())
    (root / "root/.ssh").chmod(0o700)
    host = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    image.known_hosts.write_text("".join(f"{machine.address} {host}" for machine in plan.MACHINES))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _run(*command: str) -> None:
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        detail = "\n".join((error.stdout + error.stderr).splitlines()[-15:])
        raise errors.LocalError(f"{command[0]} failed, see above", detail=detail) from None
    except subprocess.TimeoutExpired:
        raise errors.LocalError(f"{command[0]} took longer than {_TIMEOUT_S} s") from None
