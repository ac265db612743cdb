"""What the virtual machine holds: this machine's Python and busybox, pytest, the repository, and a kernel's modules.

One rule: it is made anew of what is there now, so a test in the machine is the test in the checkout.
"""

import importlib.metadata
import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PARTS = ("pyproject.toml", "runtime", "tests")
MODULES = (
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "fs/overlayfs/overlay.ko",
)
"""In the order in which each finds what it needs."""
BUSYBOX = Path("/bin/busybox")
LIBRARIES = ("libseccomp.so.2", "libgcc_s.so.1")
LEFT_OUT = {"dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter"}
"""Of the standard library; and below, of the tests."""
NOT_IN_THE_GUEST = {"bench", "sim", "vm"}

_FIRST = """\
#!/bin/busybox sh
# The kernel's own root cannot be left by pivot_root, so everything moves to a file system that can.
/bin/busybox mount -t tmpfs -o mode=755 tmpfs /new
/bin/busybox tar -xf /payload.tar -C /new
/bin/busybox rm /payload.tar
exec /bin/busybox switch_root /new /sbin/init
"""

_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root LANG=C.UTF-8 PYTHONPATH=/site
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
  echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
for module in {modules}; do insmod /modules/$module || poweroff -f; done
# Until the disk is there: what is on it is idmappable with this kernel, and its input and output can be limited.
until mount -t ext4 /dev/vda /disk 2>/dev/null; do usleep 20000; done
ip link set lo up
cd /orch
grep cgroup /proc/mounts
echo "guest: pytest starts $(cut -d' ' -f1 /proc/uptime) s after the kernel"
{python} -m pytest -p no:cacheprovider --basetemp=/disk/pytest {arguments}
echo "{marker} $?"
poweroff -f
"""


def write(target: Path, *, kernel: Path, arguments: str, marker: str) -> None:
    """Write an initial file system that runs pytest and then prints `marker`, a space and the exit code."""
    with tarfile.open(target.with_suffix(".tar"), "w") as payload:
        for path, name in _files():
            payload.add(path, name, recursive=False)
        for module in MODULES:
            (found,) = kernel.glob(f"lib/modules/*/kernel/{module}")
            payload.add(found, f"modules/{found.name}")
        for folder in ("proc", "sys", "dev", "disk", "tmp", "run", "root", "var/tmp"):
            payload.addfile(_folder(folder))
        _add_text(payload, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        _add_text(payload, "etc/group", "root:x:0:\n")
        modules = " ".join(Path(module).name for module in MODULES)
        init = _INIT.format(python=_python(), arguments=arguments, marker=marker, modules=modules)
        _add_text(payload, "sbin/init", init, mode=0o755)
    _write_archive(target)


def _files() -> Iterator[tuple[Path, str]]:
    """Files of this machine, and their names in the guest."""
    yield BUSYBOX, "bin/busybox"
    standard = Path(sysconfig.get_path("stdlib"))
    for path in _walk(standard):
        yield path, str(path).lstrip("/")
    yield Path(_python()), _python().lstrip("/")
    extensions = [str(path) for path in standard.rglob("*.so")]
    for library in _libraries([_python(), *extensions]):
        yield library.resolve(), str(library).lstrip("/")
    for distribution in _closure("pytest-xdist", "pytest-timeout"):
        for file in distribution.files or ():
            if ".." not in file.parts and file.locate().exists():
                yield Path(str(file.locate())), f"site/{file}"
    for part in PARTS:
        for path in _walk(REPOSITORY / part):
            yield path, f"orch/{path.relative_to(REPOSITORY)}"


def _walk(top: Path) -> Iterator[Path]:
    if top.is_file():
        yield top
        return
    for folder, folders, files in os.walk(top):
        folders[:] = [
            name for name in folders if name not in LEFT_OUT | NOT_IN_THE_GUEST and not name.startswith("config-")
        ]
        yield from (Path(folder, name) for name in files)


def _python() -> str:
    return os.path.realpath(sys.executable)


def _libraries(binaries: list[str]) -> list[Path]:
    """What the dynamic linker would load for these, and what is loaded by name."""
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=True).stdout
    words = {word for word in said.split() if word.startswith("/") and not word.endswith(":")}
    said = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    by_name = [line.rsplit(" => ", 1)[1] for line in said.splitlines() if line.strip().split(" ")[0] in LIBRARIES]
    return [Path(word) for word in sorted(words | set(by_name))]


def _closure(*names: str) -> list[importlib.metadata.Distribution]:
    """Distributions and everything that they require here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    todo = list(names)
    while todo:
        wanted = todo.pop()
        if wanted in found:
            continue
        try:
            found[wanted] = importlib.metadata.distribution(wanted)
        except importlib.metadata.PackageNotFoundError:
            continue  # for other systems or versions
        todo += [_name(text) for text in found[wanted].requires or () if "extra ==" not in text]
    return list(found.values())


def _name(requirement: str) -> str:
    end = next((place for place, letter in enumerate(requirement) if letter in " <>=!~;[("), len(requirement))
    return requirement[:end]


def _folder(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
    return entry


def _add_text(archive: tarfile.TarFile, name: str, text: str, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), mode
    archive.addfile(entry, io.BytesIO(text.encode()))


def _write_archive(target: Path) -> None:
    """The cpio archive that the kernel unpacks: busybox, the first program and the payload."""
    stage = target.with_suffix(".stage")
    for folder in ("bin", "new", "dev"):
        (stage / folder).mkdir(parents=True)
    (stage / "bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (stage / "init").write_text(_FIRST)
    for program in ("bin/busybox", "init"):
        (stage / program).chmod(0o755)
    target.with_suffix(".tar").rename(stage / "payload.tar")
    names = "".join(f"{path.relative_to(stage)}\n" for path in sorted(stage.rglob("*")))
    with target.open("wb") as archive:
        command = [str(BUSYBOX), "cpio", "-o", "-H", "newc"]
        subprocess.run(command, cwd=stage, input=names.encode(), stdout=archive, stderr=subprocess.PIPE, check=True)
