"""The machine of an installation, and what its story needs from everywhere: a service, and what the kernel says."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import bundles, debians, inotify, systemdmachine
from tests.support.systemdmachine import Machine

LISTING = (
    "find / -xdev \\( -path /proc -o -path /tmp -o -path /mnt -o -path /dev -o -path /run -o -path /sys -o -path /root "
    "-o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd "
    "-o -path /var/lib/orch \\) -prune -o -printf '%p %y %m %u %l\\n' | sort"
)
"""Files of the machine, but for logs, caches and the package manager's own."""
BACKUPS = ("/etc/gshadow- ", "/etc/shadow- ", "/etc/passwd- ", "/etc/group- ", "/etc/.pwd.lock ")
"""What useradd and its like leave of the day before."""
TASKS_GROUP = "system.slice/orch-tasks.service"
TASKS_UNIT = "/usr/local/lib/systemd/system/orch-tasks.service"
SERVICE = """\
kind: Service
meta: {name: clock}
spec:
  replicas: 2
  template:
    container: {image: busybox, command: [/bin/sh, -c, "trap exit TERM; while :; do date; sleep 1; done"]}
"""


@pytest.fixture(scope="session", params=dict.fromkeys((debians.own(), *debians.SUPPORTED)))
def release(request: pytest.FixtureRequest) -> str:
    """This machine's, and the others that are supported."""
    name: str = request.param
    if name != debians.own() and not os.environ.get("ORCH_TEST_SYSTEMS"):
        pytest.skip(f"{name} is not this machine's release: make test-systems")
    if reason := debians.why_not(name):
        pytest.skip(reason)
    return name


@pytest.fixture(scope="session")
def bundle(release: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make bundle` makes on such a machine, and beside it the next release: the same, under another name."""
    folder = tmp_path_factory.mktemp("bundles")
    bundles.make(folder, release)
    return folder


@pytest.fixture(scope="module")
def machine(release: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with systemdmachine.running(tmp_path_factory.mktemp("machine"), bundle, release=release) as up:
        up.sh(f"ln -s /mnt/{bundle.name} /bundles; {LISTING} >/tmp/before")
        yield up


@pytest.fixture(scope="module")
def _kernel_parameters() -> Iterator[None]:
    """Others than an installation's, which may be this computer's own."""
    with inotify.others():
        yield


def check_nothing_is_left(machine: Machine) -> None:
    """No file that was not there, and none is missing."""
    machine.sh(f"{LISTING} >/tmp/after")
    differs = machine.sh("diff /tmp/before /tmp/after", code=None).splitlines()
    left = [line for line in differs if line[:1] in "<>" and line[2:].startswith("/")]
    assert [line for line in left if not line[2:].startswith(BACKUPS)] == []


def push(machine: Machine) -> None:
    """The image of the service."""
    machine.run(
        "orchctl", "image", "push", "--archive", "/bundles/busybox.tar", "--name", "busybox", "--cmd", "/bin/sh"
    )


def memory_limit(machine: Machine) -> int:
    """The kernel's, for all tasks together, in bytes."""
    files = (f"memory/{TASKS_GROUP}/memory.limit_in_bytes", f"{TASKS_GROUP}/memory.max")
    return int(machine.sh(f"cd /sys/fs/cgroup && cat {' '.join(files)} 2>/dev/null", code=None))
