"""The first file system of a virtual machine: what its kernel unpacks into memory before there is a disk."""

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.local import errors

ROOT: Final = Path(__file__).resolve().parents[2]
KERNEL: Final = ROOT / ".cache/vm-kernel"
"""Debian's cloud kernel with its modules, as `deploy/setup.sh test` unpacks it."""
BUSYBOX: Final = Path("/bin/busybox")
DISK_MODULES: Final = (
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
)
"""In the order in which each finds what it needs. The kernel has ext4 built in."""


def kernel(folder: Path = KERNEL) -> Path:
    """The kernel's image. LocalError when it was not fetched."""
    images = list(folder.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        raise errors.LocalError(f"{folder} does not hold a kernel", hint="deploy/setup.sh test fetches it")
    return images[0]


def module(name: str, folder: Path = KERNEL) -> Path:
    """The file of one of the kernel's modules, which is named by its path below `kernel/`."""
    (found,) = folder.glob(f"lib/modules/*/kernel/{name}")
    return found


def write(target: Path, files: Mapping[str, bytes | Path]) -> None:
    """The archive that the kernel unpacks: executable files by name. A file that is given as a path is moved."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as folder:
        stage = Path(folder)
        for name in ("bin", "new", "dev"):
            (stage / name).mkdir()
        for name, content in files.items():
            (stage / name).parent.mkdir(exist_ok=True)
            _put(stage / name, content)
        names = "".join(f"{path.relative_to(stage)}\n" for path in sorted(stage.rglob("*")))
        with target.open("wb") as archive:
            command = [str(BUSYBOX), "cpio", "-o", "-H", "newc"]
            subprocess.run(command, cwd=stage, input=names.encode(), stdout=archive, stderr=subprocess.PIPE, check=True)


def _put(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path):
        content.rename(path)
    else:
        path.write_bytes(content)
        path.chmod(0o755)


_BOOT: Final = """\
#!/bin/busybox sh
# Until the disk is there, and then into it.
for module in {modules}; do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t devtmpfs devtmpfs /dev
tries=0
until /bin/busybox mount -t ext4 -o noinit_itable /dev/vda /new 2>/dev/null; do
  tries=$((tries + 1))
  [ $tries -lt 3000 ] || exec /bin/busybox poweroff -f
  /bin/busybox usleep 20000
done
/bin/busybox umount /dev
exec /bin/busybox switch_root /new /sbin/init
"""


def write_boot(target: Path) -> None:
    """The archive of a machine whose root is its first disk."""
    modules = {f"modules/{Path(name).name}": module(name).read_bytes() for name in DISK_MODULES}
    names = " ".join(Path(name).name for name in DISK_MODULES)
    write(target, {"init": _BOOT.format(modules=names).encode(), "bin/busybox": BUSYBOX.read_bytes(), **modules})
