"""Each port's fake and its real adapter, for one suite of promises."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agent import ports
from agent.adapters.disk import FileDisk
from agent.adapters.layout import Layout
from agent.adapters.runtime import Launched
from agent.core.container import ContainerRequest
from runtime import cgroups, client, defaults
from tests.support.fake_agent import FakeDisk, FakeMachine, FakeRuntime

BUSYBOX = Path("/bin/busybox")
PARENT = f"/orch/test-agent-contract-{os.getpid()}"  # two runs of the suite may go on at once

RuntimeMaker = Callable[[], AbstractAsyncContextManager[ports.Runtime]]
"""Makes a runtime over the same machine, as an agent that was started again has it."""


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
def runtimes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RuntimeMaker]:
    """Runtimes over one machine, one after the other."""
    if request.param == "fake":
        machine = FakeMachine()

        @contextlib.asynccontextmanager
        async def fake() -> AsyncIterator[ports.Runtime]:
            yield FakeRuntime(machine)

        yield fake
        return
    layout = Layout(tmp_path / "state")
    FileDisk(layout)
    _make_layer(tmp_path / "layer")

    @contextlib.asynccontextmanager
    async def real() -> AsyncIterator[ports.Runtime]:
        runtime = Launched(layout, now_ms=lambda: time.time_ns() // 1_000_000)
        try:
            yield runtime
        finally:
            await runtime.close()

    try:
        yield real
    finally:
        for entry in client.list_containers(str(layout.run)):
            client.delete(str(layout.run), entry.id, force=True)
        cgroups.existing(cgroups.current_layout(), f"{PARENT}/{tmp_path.name}").delete()
        for folder in cgroups.existing(cgroups.current_layout(), PARENT).folders:
            with contextlib.suppress(OSError):  # another test's groups are still in it
                Path(folder).rmdir()


@pytest.fixture
def container(tmp_path: Path) -> Callable[..., ContainerRequest]:
    """A container that traps SIGTERM and waits, unless another script is given."""

    def make(name: str, script: str = "trap 'exit 143' TERM; while :; do sleep 0.02; done") -> ContainerRequest:
        config = defaults.config(["sh", "-c", script], cgroups_path=f"{PARENT}/{tmp_path.name}/{name}")
        return ContainerRequest(
            container_id=name, config=config, layers=(str(tmp_path / "layer"),), log_max_size=65536, log_max_files=2
        )

    return make


@pytest.fixture(params=["fake", "real"])
def disks(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ports.Disk]:
    """Disks of one machine, as one agent after the other has them."""
    machine = FakeMachine()
    if request.param == "fake":
        return lambda: FakeDisk(machine)
    return lambda: FileDisk(Layout(tmp_path))


def _make_layer(folder: Path) -> None:
    (folder / "bin").mkdir(parents=True)
    for name in ("proc", "sys", "dev", "tmp"):
        (folder / name).mkdir()
    shutil.copy(BUSYBOX, folder / "bin/busybox")
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (folder / "bin" / applet).symlink_to("busybox")
