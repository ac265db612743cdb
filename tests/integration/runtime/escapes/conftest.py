"""A container that attacks the others: the host's Python runs in it, as what it needs has no busybox applet."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import defaults
from tests.integration.runtime.conftest import Box, wait_until
from tests.support import probe

EXCHANGE = """
import ctypes, os
libc = ctypes.CDLL(None)
print("attacking", flush=True)
while not os.path.exists("/v/stop"):
    for _ in range(500):
        assert libc.renameat2(-100, b"/v/x", -100, b"/v/y", 2) == 0  # RENAME_EXCHANGE
"""

Attack = Callable[..., None]
Exchange = Callable[..., Path]
FIRST_ID = 1 << 20


class MappedBox(Box):
    """Every container is in a user namespace: what it escapes to, it is nobody in."""

    def config(self, name: str, *args: str) -> dict[str, Any]:
        config = super().config(name, *args)
        defaults.give_user_namespace(config, first_id=FIRST_ID)
        return config


@pytest.fixture(params=[Box, MappedBox], ids=["the host's ids", "own ids"])
def box(request: pytest.FixtureRequest, image: Path, tmp_path: Path) -> Iterator[Box]:
    """Each attack is tried on containers without and with a user namespace."""
    made: Box = request.param(image, tmp_path, f"{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**8}")
    try:
        yield made
    finally:
        made.close()


_HOST_PARAMETERS = ("kernel/domainname", "kernel/core_pattern", "kernel/shmmni", "vm/overcommit_memory")


def host_parameters() -> list[str]:
    """Some of the host's own, which no container may change."""
    return [Path("/proc/sys", name).read_text() for name in _HOST_PARAMETERS]


def bind(box: Box, source: Path, destination: str) -> dict[str, Any]:
    """A volume that the container's root may write to, whoever that is on the host."""
    options = ["rbind", "idmap"] if isinstance(box, MappedBox) else ["rbind"]
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}


@pytest.fixture
def attack(box: Box) -> Attack:
    """Start a container with this Python program, with volumes by their place in it; returns when it has begun."""

    def start(name: str, program: str, **volumes: Path) -> None:
        config = box.config(name, os.path.realpath("/usr/bin/python3"), "-I", "-S", "-c", program)
        probe.mount_programs(config)
        for place, source in volumes.items():
            config["mounts"].append(bind(box, source, f"/{place}"))
        box.create(name, config)
        wait_until(lambda: "attacking" in box.log_path(name).read_text(), "the attack has begun")

    return start


@pytest.fixture
def exchange(attack: Attack, tmp_path: Path) -> Iterator[Exchange]:
    """Make a volume in which a container exchanges the folder `x` and a link `y` all the time, until the test ends.

    The link leads to `target`, which is made as a folder of the host with a secret when it is not there; `inner` are
    folders in `x`.
    """
    volume = tmp_path / "volume"

    def start(target: Path, inner: str = "sub") -> Path:
        (volume / "x" / inner).mkdir(parents=True)
        (volume / "x/file").write_text("")
        (volume / "y").symlink_to(target)
        if not target.exists():
            target.mkdir()
            (target / "secret").write_text("the host's")
        attack("attacker", EXCHANGE, v=volume)
        return volume

    yield start
    (volume / "stop").touch()
