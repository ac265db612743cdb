"""A container that attacks the others: the host's Python runs in it, as what it needs has no busybox applet."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture
def attack(box: Box) -> Attack:
    """Start a container with this Python program, with volumes by their place in it; returns when it has begun."""

    def start(name: str, program: str, **volumes: Path) -> None:
        config = box.config(name, os.path.realpath("/usr/bin/python3"), "-I", "-S", "-c", program)
        probe.mount_programs(config)
        for place, source in volumes.items():
            config["mounts"].append({"destination": f"/{place}", "source": str(source), "options": ["rbind"]})
        box.create(name, config)
        wait_until(lambda: "attacking" in box.log_path(name).read_text(), "the attack has begun")

    return start


@pytest.fixture
def exchanged(attack: Attack, tmp_path: Path) -> Path:
    """A volume in which a container exchanges the folder `x` and a link to the host's folder `canary` all the time."""
    volume, canary = tmp_path / "volume", tmp_path / "canary"
    (volume / "x/sub").mkdir(parents=True)
    (volume / "x/file").write_text("")
    canary.mkdir()
    (volume / "y").symlink_to(canary)
    attack("attacker", EXCHANGE, v=volume)
    return volume
