"""Debian's dockerd over orchrun, by way of containerd's shim, in namespaces of its own."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import sweep
from tests.integration.runtime_cli.conftest import Typist
from tests.support import disks
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

CGROUP = f"/orch/test-docker-{os.getpid()}"
# Without a network but the loopback, which Docker sets up by a hook.
_RUN = ("run", "--runtime=orchrun", "--network=none")


class Docker:
    """A client of the daemon, with an image `box`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        client = shutil.which("docker")
        assert client, "install Debian's docker.io"
        self.base = [client, "--host", f"unix://{folder}/socket"]

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [*self.base, *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

    def ok(self, *arguments: str) -> str:
        done = self.call(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout.strip()

    def told(self, name: str, what: str) -> str:
        return self.ok("inspect", "--format", "{{" + what + "}}", name)


@pytest.fixture(scope="module")
def docker(orchrun: Path, rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    folder = tmp_path_factory.mktemp("docker")
    (folder / "daemon.json").write_text("{}")
    inside = (
        f"ip link set lo up; exec dockerd --config-file {folder}/daemon.json --data-root {folder}/data "
        f"--exec-root {folder}/exec --pidfile {folder}/pid --host unix://{folder}/socket --cgroup-parent {CGROUP} "
        f"--bridge none --storage-driver vfs --add-runtime orchrun={orchrun}"
    )
    unshare = ["unshare", "--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*unshare, "sh", "-c", inside], stdout=log, stderr=log)
    try:
        made = Docker(folder)
        until(lambda: made.call("version").returncode == 0, what="dockerd answers", timeout_s=60)
        archive = folder / "box.tar"
        subprocess.run(["tar", "-C", rootfs, "-cf", archive, "."], check=True, timeout=60)
        made.ok("import", str(archive), "box")
        yield made
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        sweep.remove_cgroups(CGROUP)


_SERVICE = "trap 'exit 3' TERM; echo started; while :; do sleep 0.05; done"


def test_run_and_its_exit_codes(docker: Docker) -> None:
    done = docker.call(
        *_RUN, "--rm", "--user=5:6", "box", "sh", "-c", "id -u; id -g; grep Seccomp: /proc/self/status; exit 9"
    )
    assert (done.returncode, done.stdout.split()) == (9, ["5", "6", "Seccomp:", "2"])
    assert docker.call(*_RUN, "--rm", "box", "nosuch").returncode == 127
    assert docker.call(*_RUN, "--rm", "box", "/etc").returncode == 126


def test_a_service_from_start_to_end(docker: Docker) -> None:
    """Limits in the cgroup, exec, logs, top, pause, update, stop, restart, kill."""
    name = docker.ok(*_RUN, "--detach", "--name=web", "--memory=64m", "--cpus=0.5", "box", "sh", "-c", _SERVICE)
    memory = Path(f"/sys/fs/cgroup/memory{CGROUP}/{name}/memory.limit_in_bytes")
    assert memory.read_text().strip() == str(64 << 20)
    assert Path(f"/sys/fs/cgroup/cpu{CGROUP}/{name}/cpu.cfs_quota_us").read_text().strip() == "50000"
    assert docker.call("exec", "web", "sh", "-c", "exit 4").returncode == 4
    assert docker.call("exec", "web", "nosuch").returncode in {126, 127}
    until(lambda: docker.ok("logs", "web") == "started", what="its output")
    assert "sh -c trap" in docker.ok("top", "web")
    docker.ok("pause", "web")
    assert docker.told("web", ".State.Status") == "paused"
    docker.ok("unpause", "web")
    docker.ok("update", "--memory=80m", "--memory-swap=80m", "web")
    assert memory.read_text().strip() == str(80 << 20)
    docker.ok("stop", "--time=20", "web")
    assert docker.told("web", ".State.ExitCode") == "3"
    docker.ok("start", "web")
    docker.ok("restart", "--time=1", "web")
    assert docker.told("web", ".State.Status") == "running"
    docker.ok("kill", "web")
    assert docker.ok("wait", "web") == "137"
    docker.ok("rm", "web")


_BUSY = (
    "dd if=/dev/zero of=/file bs=256k count=8 oflag=direct; dd if=/dev/zero of=/dev/shm/x bs=1M count=9;"
    "echo written; while :; do :; done"
)


def test_limits_are_seen_inside_and_in_the_groups(docker: Docker) -> None:
    """Whatever Docker has a flag for, in the group; and by the container itself, in its own."""
    flags = ("--memory=64m", "--memory-swap=96m", "--memory-reservation=32m", "--cpus=0.5", "--cpu-shares=512")
    more = ("--cpuset-cpus=0", "--pids-limit=55", "--memory-swappiness=7")
    name = docker.ok(*_RUN, "--detach", "--name=limits", *flags, *more, "box", "sleep", "1000")
    expected = {
        "memory/memory.limit_in_bytes": 64 << 20,
        "memory/memory.memsw.limit_in_bytes": 96 << 20,
        "memory/memory.soft_limit_in_bytes": 32 << 20,
        "memory/memory.swappiness": 7,
        "cpu/cpu.shares": 512,
        "cpu/cpu.cfs_quota_us": 50000,
        "cpuset/cpuset.cpus": 0,
        "pids/pids.max": 55,
    }
    folders = {file: Path(f"/sys/fs/cgroup/{file.replace('/', f'{CGROUP}/{name}/')}") for file in expected}
    for file, path in folders.items():
        assert int(path.read_text()) == expected[file], file
        assert int(docker.ok("exec", "limits", "cat", f"/sys/fs/cgroup/{file}")) == expected[file], file
    assert docker.ok("exec", "limits", "nproc") == "1"
    changes = ("--cpus=0.25", "--cpu-shares=256", "--cpuset-cpus=1", "--pids-limit=66")
    docker.ok("update", "--memory=80m", "--memory-swap=80m", "--memory-reservation=16m", *changes, "limits")
    changed = {"cpu/cpu.cfs_quota_us": 25000, "cpuset/cpuset.cpus": 1, "pids/pids.max": 66, "cpu/cpu.shares": 256}
    assert {file: int(folders[file].read_text()) for file in changed} == changed
    assert int(folders["memory/memory.memsw.limit_in_bytes"].read_text()) == 80 << 20
    docker.ok("rm", "--force", "limits")


def test_statistics(docker: Docker) -> None:
    """Processor, memory with its limit, processes and block I/O, of this container and not of the machine."""
    docker.ok(*_RUN, "--detach", "--name=busy", "--memory=64m", "box", "sh", "-c", _BUSY)
    until(lambda: "written" in docker.ok("logs", "busy"), what="it has written", timeout_s=30)
    told = json.loads(docker.ok("stats", "--no-stream", "--format={{json .}}", "busy"))
    assert float(told["CPUPerc"].rstrip("%")) > 1
    used, _, limit = told["MemUsage"].partition(" / ")
    assert limit == "64MiB"
    assert 9 <= float(used.removesuffix("MiB")) < 64
    assert told["PIDs"] == "1"
    # The machine as a whole has written more than that long ago.
    disks.assert_written(told["BlockIO"].partition(" / ")[2], docker.folder)
    docker.ok("rm", "--force", "busy")


def test_out_of_memory_is_told(docker: Docker) -> None:
    # The shim passes on the kill and the exit side by side, and Docker counts only a kill that it hears of before the
    # exit: so the first process outlives the one that is killed.
    script = "sh -c 'x=a; while :; do x=$x$x; done'; code=$?; sleep 1; exit $code"
    done = docker.call(*_RUN, "--name=oom", "--memory=20m", "box", "sh", "-c", script)
    assert done.returncode == 137
    assert docker.told("oom", ".State.OOMKilled") == "true"
    docker.ok("rm", "oom")


def test_a_terminal(docker: Docker) -> None:
    with Typist([*docker.base, *_RUN, "--rm", "-it", "box", "sh"]) as typist:
        typist.expect("# ")
        typist.type("tty; echo $((6*7))\r")
        typist.expect("/dev/pts/0")
        typist.expect("42")
        typist.type("exit 5\r")
        assert typist.ended() == 5
