"""Mounts whose place a container changes while another one starts, and images that bring links in their places."""

import os
from pathlib import Path
from typing import Any

import pytest

from runtime import errors
from tests.integration.runtime.conftest import Box

pytestmark = pytest.mark.root

_HOST_PARAMETERS = ("kernel/domainname", "kernel/core_pattern", "kernel/shmmni", "vm/overcommit_memory")


def _parameters() -> list[str]:
    return [Path("/proc/sys", name).read_text() for name in _HOST_PARAMETERS]


def _bind(source: Path, destination: str) -> dict[str, Any]:
    return {"destination": destination, "source": str(source), "options": ["rbind"]}


def test_the_place_of_a_mount_is_exchanged(box: Box, exchanged: Path, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: between the check of a mount's place and the mount, or the making of its folder,
    another container exchanges a folder on the way for a link to the host. 200 starts with two mounts race.
    """
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mark").write_text("mark")
    script = "cat /proc/self/mountinfo | cut -d' ' -f5"
    started = 0
    for number in range(200):
        config = box.config("b", "sh", "-c", script)
        config["mounts"] += [
            _bind(exchanged, "/v"),
            {"destination": f"/v/x/made{number}", "type": "tmpfs", "source": "tmpfs"},
            _bind(tmp_path / "data", "/v/x/sub"),
        ]
        try:
            box.create("b", config)
        except errors.SetupFailed:
            box.delete("b", force=True)
            continue
        assert box.ended("b").exit_code == 0
        started += 1
        box.delete("b")
        assert list((tmp_path / "canary").iterdir()) == [], number
    assert started > 20, "the exchange must leave enough starts alive to tell anything"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mark"]
    (exchanged / "stop").touch()
    box.ended("attacker")


def test_masks_and_parameters_are_raced(box: Box, exchanged: Path, tmp_path: Path) -> None:
    """CVE-2025-52881, CVE-2023-27561: a shared volume is exchanged while masks are put on and kernel parameters are
    written, so that they land in other files of /proc. Ours are written through a procfs that is mounted nowhere.
    """
    before = _parameters()
    for name in ("sub", "file"):
        (tmp_path / "canary" / name).write_text("as it was")
    for _ in range(60):
        config = box.config("b", "cat", "/proc/sys/kernel/shmmni")
        config["mounts"].append(_bind(exchanged, "/v"))
        config["linux"]["maskedPaths"] += ["/v/x/file", "/v/x/sub"]
        config["linux"]["readonlyPaths"] += ["/v/x"]
        config["linux"]["sysctl"]["kernel.shmmni"] = "77"
        try:
            box.create("b", config)
        except errors.SetupFailed:
            box.delete("b", force=True)
            continue
        box.ended("b")
        assert box.output("b").splitlines()[-1] == "77"
        box.delete("b")
    assert _parameters() == before
    assert {path.read_text() for path in (tmp_path / "canary").iterdir()} == {"as it was"}
    (exchanged / "stop").touch()
    box.ended("attacker")


@pytest.mark.parametrize(
    "destination",
    ["/proc", "/proc/", "//proc", "/tmp/../proc", "/link", "/proc/self", "/proc/self/attr", "/proc/sys", "/link/self"],
)
def test_a_volume_lies_over_proc(box: Box, tmp_path: Path, destination: str) -> None:
    """CVE-2019-16884, CVE-2019-19921: a volume over /proc, also by another spelling or a link of the image, makes
    later writes below it go to files of the image's choice.
    """
    upper = Path(box.overlay("a")["upper"])
    (upper / "link").symlink_to("/proc")
    config = box.config("a", "true")
    config["mounts"].append(_bind(tmp_path, destination))
    with pytest.raises(errors.ContainerError, match=r"proc|destination"):
        box.create("a", config)


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_is_a_link(box: Box, tmp_path: Path, name: str) -> None:
    """CVE-2023-27561, CVE-2023-28642: the image's /proc or /sys is a link to a folder of its choice."""
    root = tmp_path / "root"
    (root / "elsewhere").mkdir(parents=True)
    (root / name).symlink_to("elsewhere")
    config = box.config("a", "true")
    config["root"]["path"] = str(root)
    with pytest.raises(errors.SetupFailed, match=f"/{name}"):
        box.create("a", config, overlay=None)


def test_dev_is_a_link(box: Box, tmp_path: Path) -> None:
    """CVE-2026-41579, CVE-2026-47766: device nodes are made where the image's /dev leads to on the host."""
    canary, root = tmp_path / "canary", tmp_path / "root"
    canary.mkdir()
    for folder in ("proc", "sys"):
        (root / folder).mkdir(parents=True)
    (root / "dev").symlink_to(canary)
    for with_mounts in (True, False):
        config = box.config("a", "true")
        config["root"]["path"] = str(root)
        if not with_mounts:
            config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
        with pytest.raises(errors.SetupFailed, match="make /dev"):
            box.create("a", config, overlay=None)
        assert list(canary.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "file", "device"])
def test_dev_null_is_something_else(box: Box, kind: str) -> None:
    """CVE-2025-31133: a mask is a bind of the container's /dev/null; where that is a link into /proc, the link's
    target becomes writable instead of masked.
    """
    before = _parameters()
    device = Path(box.overlay("a")["upper"]) / "dev"
    device.mkdir()
    match kind:
        case "link":
            (device / "null").symlink_to("/proc/sys/kernel/domainname")
        case "file":
            (device / "null").write_text("readable")
        case _:
            os.mknod(device / "null", 0o20666, os.makedev(1, 5))
    config = box.config("a", "sh", "-c", "echo broken > /proc/keys")
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    with pytest.raises(errors.SetupFailed, match="/dev/null"):
        box.create("a", config)
    assert _parameters() == before


@pytest.mark.parametrize("place", ["console", "pts", "pts/ptmx"])
def test_a_terminal_is_something_else(box: Box, place: str) -> None:
    """CVE-2025-52565: /dev/pts/N or /dev/console is a link of the image, and the terminal is bound on its target."""
    before = _parameters()
    device = Path(box.overlay("a")["upper"]) / "dev"
    (device / place).parent.mkdir(parents=True)
    (device / place).symlink_to("/proc/sys/kernel" if place == "pts" else "/proc/sys/kernel/domainname")
    config = box.config("a", "sh", "-c", "echo broken")
    config["process"]["terminal"] = True
    dropped = ("/dev", "/dev/mqueue", "/dev/shm", *(("/dev/pts",) if place != "console" else ()))
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] not in dropped]
    with pytest.raises(errors.ContainerError):
        box.create("a", config)
    assert _parameters() == before
