"""Debian's podman over orchrun: what people do with it, in a store of its own."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import cgroups
from tests.integration.runtime_cli.conftest import Typist
from tests.support import disks
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

CGROUP = f"/orch/test-podman-{os.getpid()}"
# Raising a limit may be beyond this machine, and podman's default does.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
events_logger = "file"
runtime_supports_json = ["orchrun"]
runtime_supports_nocgroup = ["orchrun"]
"""


class Podman:
    """podman with an image `box`."""

    def __init__(self, orchrun: Path, rootfs: Path, folder: Path) -> None:
        (folder / "containers.conf").write_text(_CONTAINERS)
        self.folder = folder
        self._environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
        places = [f"--{name}={folder / name}" for name in ("root", "runroot", "tmpdir")]
        self.runtime = str(orchrun)
        self.base = ["podman", *places, "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime", self.runtime]
        archive = folder / "box.tar"
        subprocess.run(["tar", "-C", rootfs, "-cf", archive, "."], check=True, timeout=60)
        self.ok("import", str(archive), "box")

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "env": self._environment}
        # In a folder of its own: conmon writes a file `oom` to where it stands.
        options["cwd"] = self.folder
        return subprocess.run([*self.base, *arguments], check=False, stdin=subprocess.DEVNULL, **options)

    def ok(self, *arguments: str) -> str:
        done = self.call(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout.strip()

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.call("run", "--network=none", f"--cgroup-parent={CGROUP}", *arguments)

    def start(self, name: str, *arguments: str) -> None:
        done = self.run("--detach", "--name", name, *arguments)
        assert done.returncode == 0, done.stderr

    def state(self, name: str) -> dict[str, Any]:
        [found] = json.loads(self.ok("inspect", name))
        assert found["OCIRuntime"] == self.runtime
        told: dict[str, Any] = found["State"]
        return told

    def type(self, *arguments: str) -> Typist:
        line = [*self.base, "run", "--rm", "-it", "--network=none", f"--cgroup-parent={CGROUP}", *arguments]
        return Typist(line, env=self._environment)


@pytest.fixture(scope="module")
def podman(orchrun: Path, rootfs: Path) -> Iterator[Podman]:
    with contextlib.ExitStack() as stack:
        # Podman takes no path of more than 50 characters for its --runroot.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="orch-podman-", ignore_cleanup_errors=True))
        made = Podman(orchrun, rootfs, Path(folder))
        stack.callback(_clean, made)
        yield made


def _clean(made: Podman) -> None:
    made.ok("rm", "--force", "--all", "--time=0")
    made.ok("rmi", "--force", "--all")
    group = cgroups.existing(cgroups.current_layout(), CGROUP)
    until(lambda: not group.pids(), what="every conmon has ended")
    group.delete()


_SERVICE = "trap 'exit 3' TERM; echo started; while :; do sleep 0.05; done"


def test_run_and_its_exit_codes(podman: Podman) -> None:
    done = podman.run(
        "--rm", "--user", "5:6", "--hostname", "here", "box", "sh", "-c", "id -u; id -g; hostname; exit 9"
    )
    assert (done.returncode, done.stdout.split()) == (9, ["5", "6", "here"])
    assert podman.run("--rm", "box", "nosuch").returncode == 127
    assert podman.run("--rm", "box", "/etc").returncode == 126
    assert podman.ok("ps", "--all", "--quiet") == ""


def test_a_service_from_start_to_end(podman: Podman) -> None:
    """exec, logs, top, stats, pause, stop, start again, kill."""
    podman.start("web", "--memory=64m", "box", "sh", "-c", _SERVICE)
    assert podman.call("exec", "web", "sh", "-c", "exit 4").returncode == 4
    assert podman.call("exec", "web", "nosuch").returncode == 127
    assert podman.ok("exec", "--user", "app", "--env", "A=b", "web", "sh", "-c", "id -u; echo $A").split() == [
        "1000",
        "b",
    ]
    until(lambda: podman.ok("logs", "web") == "started", what="its output")
    assert "sh -c trap" in podman.ok("top", "web", "args")
    [measured] = json.loads(podman.ok("stats", "--no-stream", "--format=json", "web"))
    assert measured["mem_usage"].endswith("/ 67.11MB")
    podman.ok("pause", "web")
    assert podman.state("web")["Status"] == "paused"
    podman.ok("unpause", "web")
    podman.ok("stop", "--time=20", "web")
    assert (podman.state("web")["Status"], podman.state("web")["ExitCode"]) == ("exited", 3)
    podman.ok("start", "web")
    podman.ok("update", "--memory=80m", "--memory-swap=80m", "web")
    group = Path(f"/sys/fs/cgroup/memory{CGROUP}/libpod-{podman.ok('inspect', '--format={{.Id}}', 'web')}")
    assert (group / "memory.limit_in_bytes").read_text().strip() == str(80 << 20)
    podman.ok("kill", "web")
    until(lambda: podman.state("web")["Status"] == "exited", what="its end")
    assert podman.state("web")["ExitCode"] == 137
    podman.ok("rm", "web")


def test_limits_are_seen_inside_and_in_the_groups(podman: Podman) -> None:
    """In the group, by the container itself, and changed while it runs and after it was paused."""
    flags = ("--memory=64m", "--memory-swap=96m", "--cpus=0.5", "--cpu-shares=512", "--cpuset-cpus=0")
    podman.start("limits", *flags, "--pids-limit=55", "box", "sleep", "1000")
    expected = {
        "memory/memory.limit_in_bytes": 64 << 20,
        "memory/memory.memsw.limit_in_bytes": 96 << 20,
        "cpu/cpu.shares": 512,
        "cpu/cpu.cfs_quota_us": 50000,
        "cpuset/cpuset.cpus": 0,
        "pids/pids.max": 55,
    }
    name = f"libpod-{podman.ok('inspect', '--format={{.Id}}', 'limits')}"
    folders = {file: Path(f"/sys/fs/cgroup/{file.replace('/', f'{CGROUP}/{name}/')}") for file in expected}
    assert {file: int(path.read_text()) for file, path in folders.items()} == expected
    inside = podman.ok("exec", "limits", "cat", *(f"/sys/fs/cgroup/{file}" for file in expected))
    assert [int(line) for line in inside.split()] == list(expected.values())
    podman.ok("pause", "limits")
    podman.ok("unpause", "limits")
    podman.ok("update", "--memory=80m", "--memory-swap=80m", "--cpus=0.25", "--cpuset-cpus=1", "limits")
    changed = {"memory/memory.memsw.limit_in_bytes": 80 << 20, "cpu/cpu.cfs_quota_us": 25000, "cpuset/cpuset.cpus": 1}
    assert {file: int(folders[file].read_text()) for file in changed} == changed
    podman.ok("rm", "--force", "--time=0", "limits")


def test_statistics(podman: Podman) -> None:
    """Processor, memory, processes and block I/O of the container."""
    script = (
        "dd if=/dev/zero of=/file bs=256k count=8 oflag=direct; dd if=/dev/zero of=/dev/shm/x bs=1M count=9;"
        "echo written; while :; do :; done"
    )
    podman.start("busy", "--memory=64m", "box", "sh", "-c", script)
    until(lambda: "written" in podman.ok("logs", "busy"), what="it has written", timeout_s=30)
    [told] = json.loads(podman.ok("stats", "--no-stream", "--format=json", "busy"))
    assert float(told["cpu_percent"].rstrip("%")) > 1
    used, _, limit = told["mem_usage"].partition(" / ")
    assert limit == "67.11MB"
    assert 9 <= float(used.removesuffix("MB")) < 64
    assert told["pids"] == "1"
    disks.assert_written(told["block_io"].partition(" / ")[2], podman.folder)
    podman.ok("rm", "--force", "--time=0", "busy")


def test_without_a_cgroup(podman: Podman) -> None:
    """--cgroups=disabled: podman's own rule for devices is kept, and no limit is there."""
    drop = ("--cap-drop=MKNOD",)  # or the rule could not be kept, and is refused
    done = podman.call("run", "--rm", "--network=none", "--cgroups=disabled", *drop, "box", "cat", "/proc/self/cgroup")
    assert done.returncode == 0, done.stderr
    assert "libpod" not in done.stdout


def test_out_of_memory_ends_it(podman: Podman) -> None:
    done = podman.run("--rm", "--memory=20m", "box", "sh", "-c", "x=a; while :; do x=$x$x; done")
    assert done.returncode == 137


def test_a_terminal(podman: Podman) -> None:
    with podman.type("box", "sh") as typist:
        typist.expect("# ")
        typist.type("tty; echo $((6*7))\r")
        typist.expect("/dev/pts/0")
        typist.expect("42")
        typist.type("exit 5\r")
        assert typist.ended() == 5


def test_build(podman: Podman, tmp_path: Path) -> None:
    """A RUN step is a container of ours."""
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN echo made by $(id -u) > /made\n")
    # The parent is the step's own group here, unlike with `run`.
    parent = f"--cgroup-parent={CGROUP}/build"
    podman.ok("build", "--isolation=oci", "--network=none", parent, "--tag=built", str(tmp_path))
    assert podman.run("--rm", "built", "cat", "/made").stdout == "made by 0\n"
