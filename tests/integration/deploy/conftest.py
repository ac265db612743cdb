"""The machine of an installation, and what its story needs from everywhere: a service, and what the kernel says."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import bundles, debians, systemdmachine
from tests.support.systemdmachine import Machine

LISTING = (
    "find / -xdev \\( -path /proc -o -path /tmp -o -path /mnt -o -path /dev -o -path /run -o -path /sys -o -path /root "
    "-o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd "
    "-o -path /var/lib/orch \\) -prune -o -printf '%p %y %m %u %l\\n' | sort"
)
"""Files of the machine, but for logs, caches and the package manager's own."""
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


@pytest.fixture(scope="module", params=dict.fromkeys((debians.own(), *debians.SUPPORTED)))
def release(request: pytest.FixtureRequest) -> str:
    """This machine's, and the others that are supported."""
    name: str = request.param
    if name != debians.own() and not os.environ.get("ORCH_TEST_SYSTEMS"):
        pytest.skip(f"{name} is not this machine's release: make test-systems")
    if reason := debians.why_not(name):
        pytest.skip(reason)
    return name


@pytest.fixture(scope="module")
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


def push(machine: Machine) -> None:
    """The image of the service."""
    machine.run(
        "orchctl", "image", "push", "--archive", "/bundles/busybox.tar", "--name", "busybox", "--cmd", "/bin/sh"
    )


def memory_limit(machine: Machine) -> int:
    """The kernel's, for all tasks together, in bytes."""
    files = (f"memory/{TASKS_GROUP}/memory.limit_in_bytes", f"{TASKS_GROUP}/memory.max")
    return int(machine.sh(f"cd /sys/fs/cgroup && cat {' '.join(files)} 2>/dev/null", code=None))
