"""What of the runtime itself can be reached: its sockets, its folders, its protocol, and the kernel's risky doors."""

import errno
import subprocess
from pathlib import Path

import pytest

from runtime import client, errors
from tests.integration.runtime.conftest import Box
from tests.integration.runtime.escapes.conftest import FIRST_ID
from tests.support import groups, probe

pytestmark = pytest.mark.root

_NEW_USER, _SIGCHLD = 0x10000000, 17


def _as_user(number: int) -> list[str]:
    return ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]


def test_no_abstract_sockets(box: Box) -> None:
    """CVE-2020-15257: a socket with an abstract name is open to every container on the host's network."""
    config = box.config("a", "sh", "-c", "cat /proc/net/unix; sleep 100")
    config["linux"]["namespaces"] = [entry for entry in config["linux"]["namespaces"] if entry["type"] != "network"]
    config["linux"]["sysctl"] = {}
    box.create("a", config)
    pids = {box.launcher.ping(), client.list_containers(box.root)[0].monitor_pid}
    held = {link for pid in pids for link in _links(pid) if link.startswith("socket:")}
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    ours = [row[7] for row in rows if f"socket:[{row[6]}]" in held and len(row) > 7]
    assert ours, "the monitor listens on a file"
    assert not [name for name in ours if name.startswith("@")]


def _links(pid: int) -> list[str]:
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]


@pytest.mark.parametrize("user", [1000, FIRST_ID], ids=["a user", "a container's root"])
def test_folders_are_closed_to_others(box: Box, tmp_path: Path, user: int) -> None:
    """CVE-2021-41089, CVE-2021-41091, CVE-2021-41103, CVE-2021-21284: a user of the host, or the root of a container
    in a user namespace that got out, walks into the containers' folders. It fails when the folders are made 0755.
    """
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("pytest-", "popen-", "test_")):
            folder.chmod(0o755)  # so that nothing but the runtime's own folder is in the way
    box.create("a", box.config("a", "sleep", "100"))
    root = Path(box.root)
    assert subprocess.run([*_as_user(user), "ls", tmp_path], capture_output=True, check=False).returncode == 0
    for path in (root / "a", root / "a/state.json", root / "a/config.json", root / "a/monitor.sock"):
        assert path.exists(), path
        done = subprocess.run([*_as_user(user), "stat", path], capture_output=True, text=True, check=False)
        assert "Permission denied" in done.stderr, (path, done)


def test_the_hosts_control_groups(box: Box) -> None:
    """CVE-2023-25809: in the host's cgroup namespace the container's own groups can be seen but not written to, and
    those of others cannot be seen at all. It fails when the mount is not made read-only.
    """
    place = groups.inside("pids")
    script = f"ls {place}; mkdir {place}/more; echo 5 > {place}/pids.max; ls /sys/fs/cgroup/*/orch; :"
    config = box.config("a", "sh", "-c", script)
    config["linux"]["namespaces"] = [entry for entry in config["linux"]["namespaces"] if entry["type"] != "cgroup"]
    box.create("a", config)
    box.ended("a")
    said = box.output("a")
    assert "pids.max" in said
    assert said.count("Read-only file system") == 2, said
    assert not groups.folder("pids", f"{box.parent}/a/more").exists()
    assert "/orch: No such file or directory" in said


def test_huge_requests_are_refused_whole(box: Box) -> None:
    """CVE-2021-43784: a length that overflows its field in the runtime's own messages adds fields to the next one."""
    config = box.config("a", "true")
    config["process"]["env"] = ["X=" + "y" * (9 << 20)]
    with pytest.raises(errors.ProtocolError, match="are the most"):
        box.create("a", config)
    # Around 2^16 in one field and in all together, and below the kernel's 128 KiB for one string.
    for length in (65_535, 65_536, 65_537, 131_000):
        config = box.config("b", "sh", "-c", "echo ${#X} $Y")
        config["process"]["env"] += [f"X={'y' * length}", "Y=last"]
        box.create("b", config)
        box.ended("b")
        assert box.output("b").splitlines()[-1] == f"{length} last"
        box.delete("b", force=True)
    config = box.config("c", "true")
    config["linux"]["uidMappings"] = [{"containerID": n, "hostID": 2**33 + n, "size": 1} for n in range(400)]
    with pytest.raises(errors.InvalidSpec):
        box.create("c", config)


def test_the_kernels_risky_doors(box: Box) -> None:
    """CVE-2022-0185: an own user namespace brings CAP_SYS_ADMIN, and with it fsopen(2) and its bugs."""
    config = box.config(
        "a",
        *probe.arguments(
            [
                ["unshare", [_NEW_USER]],
                ["clone", [_NEW_USER | _SIGCHLD, 0, 0, 0, 0]],
                ["fsopen", ["ext4", 0]],
                ["clone3", [0, 0]],
            ]
        ),
    )
    probe.mount_programs(config)
    box.create("a", config)
    box.ended("a")
    refused = ["errno", errno.EPERM]
    assert probe.read(box.output("a")) == [refused, refused, refused, ["errno", errno.ENOSYS]]
