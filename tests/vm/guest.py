"""What the virtual machine executes from its first program to the tests' end.

One rule: whatever was process 1, the tests are started by the same script.
"""

import tarfile
from pathlib import Path

from deploy.vmlab import initial
from tests.vm import archive, files, systemd

MODULES = (*initial.DISK_MODULES, "fs/overlayfs/overlay.ko")
FOLDERS = ("proc", "sys", "dev", "disk", "tmp", "run", "root", "var/tmp")

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
export PATH=/bin:/usr/bin
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
ip link set lo up
exec /sbin/orch-tests
"""

_TESTS = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/root LANG=C.UTF-8 PYTHONPATH=/site
for module in {modules}; do insmod /modules/$module || poweroff -f; done
# Until the disk is there: what is on it is idmappable with this kernel, and its input and output can be limited.
until mount -t ext4 /dev/vda /disk 2>/dev/null; do usleep 20000; done
cd /orch
grep cgroup /proc/mounts
echo "guest: pytest starts $(cut -d' ' -f1 /proc/uptime) s after the kernel"
{python} -m pytest -p no:cacheprovider --basetemp=/disk/pytest {arguments}
echo "{marker} $?"
poweroff -f
"""


def write(target: Path, *, with_systemd: bool, arguments: str, marker: str) -> None:
    """Write an initial file system that runs pytest and then prints `marker`, a space and the exit code."""
    tar = target.with_suffix(".tar")
    with tarfile.open(tar, "w") as opened:
        payload = archive.Payload(opened)
        payload.add(files.common())
        payload.add(_modules())
        for folder in FOLDERS:
            payload.add_folder(folder)
        payload.add_link("usr/bin/python3", str(files.python()))
        payload.add_text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/tmp:/bin/sh\n")
        payload.add_text("etc/group", "root:x:0:\napp:x:1001:\n")
        modules = " ".join(Path(module).name for module in MODULES)
        tests = _TESTS.format(python=files.python(), arguments=arguments, marker=marker, modules=modules)
        payload.add_text("sbin/orch-tests", tests, mode=0o755)
        if with_systemd:
            systemd.add(payload)
        else:
            payload.add_text("sbin/init", _INIT, mode=0o755)
    busybox = initial.BUSYBOX.read_bytes()
    initial.write(target, {"init": _FIRST.encode(), "bin/busybox": busybox, "payload.tar": tar})


def _modules() -> files.Files:
    for module in MODULES:
        yield initial.module(module), f"modules/{Path(module).name}"
