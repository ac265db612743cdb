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
"""


class Podman:
    """podman with an image `box`."""

    def __init__(self, orchrun: Path, rootfs: Path, folder: Path) -> None:
        (folder / "containers.conf").write_text(_CONTAINERS)
        self._folder = folder
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
        options["cwd"] = self._folder
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
