"""Real containers from a root file system that is one static busybox."""

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import cgroups, client, defaults, state
from tests.support import rootfs

PARENT = f"/orch/test-runtime-{os.getpid()}"  # two runs of the suite may go on at once


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Wait for a condition, with a bound."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"not within {timeout_s} s: {what}"
        select.select([], [], [], 0.005)


def wait_gone(pid: int, timeout_s: float = 10.0) -> None:
    """Wait for the end of any process."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], timeout_s)[0], f"process {pid} is still there"
    finally:
        os.close(fd)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lower layer."""
    return rootfs.busybox(tmp_path_factory.mktemp("image") / "root")


class Box:
    """One test's containers, over a launcher and a state folder of its own."""

    def __init__(self, image: Path, folder: Path, name: str) -> None:
        self.image = image
        self.folder = folder
        self.root = str(folder / "state")
        self.parent = f"{PARENT}-{name}"
        self.launcher = client.Launcher.spawn(self.root)
        self._made: list[str] = []

    def overlay(self, name: str) -> dict[str, Any]:
        """A new overlay over the image."""
        for kind in ("upper", "work"):
            (self.folder / name / kind).mkdir(parents=True, exist_ok=True)
        return {
            "lower": [str(self.image)],
            "upper": str(self.folder / name / "upper"),
            "work": str(self.folder / name / "work"),
        }

    def config(self, name: str, *args: str) -> dict[str, Any]:
        """The default configuration."""
        return defaults.config(args, cgroups_path=f"{self.parent}/{name}", hostname=name)

    def create(self, name: str, config: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Create a container with a log."""
        self._made.append(name)
        options.setdefault("overlay", self.overlay(name))
        options.setdefault("log", {"path": str(self.log_path(name))})
        return self.launcher.create(name, config, **options)

    def log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def output(self, name: str) -> str:
        """What the container wrote so far, without the log's columns."""
        lines = self.log_path(name).read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)

    def ended(self, name: str) -> state.Exit:
        """Wait for the end, however late we look."""
        wait_until(lambda: state.load_exit(self.root, name) is not None, f"{name} has ended")
        known = state.load(self.root, name)
        wait_gone(known.monitor_pid)
        found = state.load_exit(self.root, name)
        assert found is not None
        return found

    def run(self, name: str, *args: str, change: Callable[[dict[str, Any]], None] | None = None) -> str:
        """Run to the end, successfully; the output."""
        config = self.config(name, *args)
        if change is not None:
            change(config)
        self.create(name, config)
        ended = self.ended(name)
        assert ended.exit_code == 0, (ended, self.output(name))
        return self.output(name)

    def delete(self, name: str, *, force: bool = False) -> None:
        """So that the name can be used again."""
        client.delete(self.root, name, force=force)

    def monitor(self, name: str) -> client.Monitor:
        return client.adopt(self.root, name)

    def close(self) -> None:
        self.launcher.close()
        for name in self._made:
            client.delete(self.root, name, force=True)
        group = cgroups.existing(cgroups.current_layout(), self.parent)
        group.delete()


@pytest.fixture
def box(image: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    """Containers that are gone, with their cgroups, when the test ends."""
    made = Box(image, tmp_path, f"{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**8}")
    try:
        yield made
    finally:
        made.close()
