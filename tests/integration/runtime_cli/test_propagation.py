"""Which mounts of the host a container hears of, and the other way round.

Here / may be private, so each test has a mount namespace of its own with a shared tree, in which `orchrun` runs.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_cli.conftest import Command

pytestmark = pytest.mark.root


class Shared:
    """A mount namespace with a shared tmpfs that holds a root file system and a volume."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command = command
        self.tree = folder / "shared"
        self.tree.mkdir()
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 1000"],
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"ready\n"
        self.run("mount", "-t", "tmpfs", "tree", self.tree)
        self.run("mount", "--make-shared", self.tree)
        self.run("cp", "-a", command.rootfs, self.tree / "root")
        self.run("mkdir", self.tree / "root/mnt", self.tree / "volume", self.tree / "volume/mnt")

    def run(self, *line: object) -> str:
        """Run a command where the tree is."""
        enter = ["nsenter", "--mount", f"--target={self.holder.pid}", "--wd=/"]
        done = subprocess.run([*enter, *map(str, line)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def mount(self, target: Path, name: str) -> None:
        """Mount a tmpfs with a file in it."""
        self.run("mount", "-t", "tmpfs", "x", target)
        self.run("touch", target / name)

    def start(self, change: Callable[[dict[str, Any]], None]) -> None:
        """A container `a` that sleeps and may mount."""

        def all_changes(config: dict[str, Any]) -> None:
            config["root"] = {"path": str(self.tree / "root")}
            for kind in ("bounding", "effective", "permitted"):
                config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")
            del config["linux"]["seccomp"]
            change(config)

        bundle = self.command.bundle("a", ["sleep", "1000"], change=all_changes)
        line = self.command.line("run", "--detach", "--bundle", bundle, "a")
        self.run("sh", "-c", f"exec {' '.join(line)} >/dev/null 2>&1")

    def inside(self, *line: str) -> str:
        """The output of a command in the container."""
        return self.run(*self.command.line("exec", "a", *line))

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate(timeout=30)


@pytest.fixture
def shared(command: Command, tmp_path: Path) -> Iterator[Shared]:
    made = Shared(command, tmp_path)
    try:
        yield made
    finally:
        made.close()


def propagation(word: str) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["linux"].update(rootfsPropagation=word)


def tags(shared: Shared, mount_point: str) -> list[str]:
    """The optional fields of a mount in the container (proc(5), mountinfo): "shared:1", "master:2", "unbindable"."""
    for row in (line.split() for line in shared.inside("cat", "/proc/self/mountinfo").splitlines()):
        if row[4] == mount_point:
            return row[6 : row.index("-")]
    raise AssertionError(f"no mount {mount_point}")


@pytest.mark.parametrize("word", ["slave", "rslave"])
def test_slave_root_hears_of_the_host(shared: Shared, word: str) -> None:
    """What the host mounts in the root's folder appears in the container; what that mounts stays there."""
    shared.start(propagation(word))
    shared.mount(shared.tree / "root/mnt", "file")
    assert shared.inside("ls", "/mnt") == "file\n"
    shared.inside("mount", "-t", "tmpfs", "x", "/tmp")
    assert "root/tmp" not in shared.run("cat", "/proc/self/mountinfo")
    [tag] = tags(shared, "/")
    assert tag.startswith("master:")


@pytest.mark.parametrize("word", ["", "private", "rprivate"])
def test_private_root_hears_nothing(shared: Shared, word: str) -> None:
    """That is also what a container gets that asks for nothing."""
    shared.start(propagation(word))
    shared.mount(shared.tree / "root/mnt", "file")
    assert shared.inside("ls", "/mnt") == ""
    assert tags(shared, "/") == []


@pytest.mark.parametrize("word", ["shared", "rshared"])
def test_shared_root_is_a_peer_group_of_its_own(shared: Shared, word: str) -> None:
    """Further mount namespaces of the container share its mounts with it; the host does not."""
    shared.start(propagation(word))
    [tag] = tags(shared, "/")
    assert tag.startswith("shared:")
    shared.mount(shared.tree / "root/mnt", "file")
    assert shared.inside("ls", "/mnt") == ""
    shared.inside("unshare", "-m", "--propagation", "shared", "mount", "-t", "tmpfs", "x", "/tmp")
    assert tags(shared, "/tmp")
    assert "root/tmp" not in shared.run("cat", "/proc/self/mountinfo")


@pytest.mark.parametrize("word", ["unbindable", "runbindable"])
def test_unbindable_root(shared: Shared, word: str) -> None:
    """The root cannot be bound anywhere."""
    shared.start(propagation(word))
    assert tags(shared, "/") == ["unbindable"]
    assert "Invalid argument" in shared.inside("sh", "-c", "mount --bind / /tmp 2>&1; true")


def test_recursion_reaches_what_root_path_brings(shared: Shared) -> None:
    """A word with r is for the mounts below root.path as well; the configuration's mounts have words of their own."""
    shared.mount(shared.tree / "root/mnt", "file")
    shared.start(propagation("rshared"))
    assert tags(shared, "/mnt")[0].startswith("shared:")
    assert tags(shared, "/proc") == []


@pytest.mark.parametrize(("word", "heard", "told"), [("rprivate", 0, 0), ("rslave", 1, 0), ("rshared", 1, 1)])
def test_propagation_of_a_volume(shared: Shared, word: str, *, heard: int, told: int) -> None:
    """A private volume neither hears nor tells of mounts, a slave hears, and a shared one does both."""
    mount = {"destination": "/data", "source": str(shared.tree / "volume"), "options": ["rbind", word]}
    shared.start(lambda config: config["mounts"].append(mount))
    shared.mount(shared.tree / "volume/mnt", "file")
    assert shared.inside("ls", "/data/mnt") == "file\n" * heard
    shared.inside("mkdir", "/data/own")
    shared.inside("mount", "-t", "tmpfs", "x", "/data/own")
    rows = shared.run("cat", "/proc/self/mountinfo").splitlines()
    assert sum("/volume/own " in row for row in rows) == told
