"""Images that bring links in the places of mounts, and volumes that are to lie over what the runtime needs."""

import os
from pathlib import Path

import pytest

from runtime import errors
from tests.integration.runtime.conftest import Box
from tests.integration.runtime.escapes.conftest import bind, host_parameters

pytestmark = pytest.mark.root


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
    config["mounts"].append(bind(box, tmp_path, destination))
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
        with pytest.raises(errors.SetupFailed, match="/dev"):
            box.create("a", config, overlay=None)
        assert list(canary.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "file", "device"])
def test_dev_null_is_something_else(box: Box, kind: str) -> None:
    """CVE-2025-31133: a mask is a bind of the container's /dev/null; where that is a link into /proc, the link's
    target becomes writable instead of masked.
    """
    before = host_parameters()
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
    # By a volume too, as in a user namespace nobody could make the other nodes in the image's folder.
    config["mounts"].append(bind(box, device, "/dev"))
    with pytest.raises(errors.SetupFailed, match="/dev/null"):
        box.create("a", config)
    assert host_parameters() == before


@pytest.mark.parametrize("place", ["console", "pts", "pts/ptmx"])
def test_a_terminal_is_something_else(box: Box, place: str) -> None:
    """CVE-2025-52565: /dev/pts/N or /dev/console is a link of the image, and the terminal is bound on its target."""
    before = host_parameters()
    device = Path(box.overlay("a")["upper"]) / "dev"
    (device / place).parent.mkdir(parents=True)
    (device / place).symlink_to("/proc/sys/kernel" if place == "pts" else "/proc/sys/kernel/domainname")
    config = box.config("a", "sh", "-c", "echo broken")
    config["process"]["terminal"] = True
    dropped = ("/dev", "/dev/mqueue", "/dev/shm", *(("/dev/pts",) if place != "console" else ()))
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] not in dropped]
    with pytest.raises(errors.ContainerError):
        box.create("a", config)
    assert host_parameters() == before
