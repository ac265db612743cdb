"""A machine that is to be a node no more: when that is refused, and that nothing stays."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.adapters import departure
from agent.adapters.layout import KEEPER, MONITORS, Layout
from images.store import ImageStore
from runtime import cgroups, residence
from tests.integration.agent.conftest import Node, led
from tests.support.aio import bounded
from tests.support.fake_leader import task, template
from tests.support.orchctl import ROOT

pytestmark = pytest.mark.root


def leave(node: Node, *options: str, state: Path | None = None) -> tuple[int, str]:
    """What the command says, and its exit code."""
    command = [sys.executable, "-m", "orchctl", "node", "leave", f"--state={state or node.state}"]
    done = subprocess.run(
        ["nsenter", f"--net={node.namespace}", *command, f"--cgroup-parent={node.parent}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_containers_have_nested_however_deep_goes_too(tmp_path: Path) -> None:
    """Deeper than Python calls itself."""
    layout = Layout(tmp_path / "state")
    layout.tasks.mkdir(parents=True)
    nested = "$(yes d | head -n 1500 | tr '\\n' /)"
    subprocess.run(["sh", "-c", f"cd {layout.tasks} && mkdir -p {nested}"], check=True, timeout=30)
    departure.remove_files(layout)
    assert not layout.state.exists()


@bounded(120)
async def test_nothing_stays(node: Node, store: ImageStore) -> None:
    """It refuses while the agent or a task is there; when it is told what to do, everything goes, and twice is fine."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=template())
        await leader.running("web-1-a")
    code, said = leave(node)
    assert (code, "uses" in said, "--stop-agent" in said) == (1, True, True), said
    assert node.agent is not None
    assert node.agent.poll() is None
    code, said = leave(node, "--stop-agent")
    assert (code, "1 task runs here (web-1-a)" in said) == (1, True), said
    assert node.agent.wait(10) == 0, "the agent was told to end"
    assert list(node.containers()) == ["web-1-a"]
    code, said = leave(node, "--kill-tasks")
    assert code == 0, said
    assert left(node) == []
    assert node.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert "put back: net/ipv4/ip_forward" in said
    code, said = leave(node)
    assert code == 0, said
    node.agent = None


def test_the_group_of_a_unit_stays_where_it_is_kept_and_those_of_containers_go() -> None:
    """Without its keeper it goes, too."""
    unit = f"/orch-test-{os.getpid()}/tasks.service"
    folders = [Path(folder) for folder in residence.everywhere(unit)]
    for folder in folders:
        for name in ("a", MONITORS, KEEPER):
            (folder / name).mkdir(parents=True)
    with subprocess.Popen(["sleep", "infinity"]) as keeper:
        try:
            for folder in folders:
                if not (folder / "cpuset.cpus").exists():  # version 1 begins with none
                    (folder / KEEPER / "cgroup.procs").write_text(str(keeper.pid))
            departure.remove_groups(unit)
            below = {path.name for folder in folders if folder.exists() for path in folder.iterdir() if path.is_dir()}
            assert below == {KEEPER}
        finally:
            keeper.kill()
            keeper.wait()
            for folder in folders:
                with contextlib.suppress(FileNotFoundError):
                    (folder / KEEPER).rmdir()
            departure.remove_groups(unit)
    assert not any(folder.parent.exists() for folder in folders)


def test_a_folder_of_somebody_else_is_left_alone(node: Node) -> None:
    other = node.folder / "other"
    other.mkdir()
    (other / "letter").write_text("dear")
    code, said = leave(node, state=other)
    assert (code, "is not the state folder of an agent" in said) == (1, True)
    assert (other / "letter").read_text() == "dear"


@bounded(60)
async def test_files_of_others_stay(node: Node, store: ImageStore) -> None:
    """In the agent's own folder, too."""
    async with led(node, store):
        node.kill()
    (node.state / "letter").write_text("dear")
    assert leave(node)[0] == 0
    assert [path.name for path in node.state.iterdir()] == ["letter"]


def left(node: Node) -> list[str]:
    """Everything of the agent's that is there."""
    network = node.run("ip", "link") + node.run("ip", "route") + node.run("nft", "list", "tables")
    groups = cgroups.existing(cgroups.current_layout(), node.parent).folders
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(node.state) in line]
    processes = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(node.state).encode() in _read(path) and b"orchctl" not in _read(path)
    ]
    files = [str(node.state)] if node.state.exists() else []
    return [*(line for line in network.splitlines() if "orch" in line), *groups, *mounts, *processes, *files]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
