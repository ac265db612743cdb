"""Containers that exchange a folder for a link in a shared volume all the time while others start on that volume."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from runtime import errors
from tests.integration.runtime.conftest import Box
from tests.integration.runtime.escapes.conftest import Exchange, bind, host_parameters

pytestmark = pytest.mark.root

_STARTS = 60
_SEES = "cat /v/x/secret 2>/dev/null; cat /proc/self/mountinfo"


def _started(box: Box, config: dict[str, Any]) -> bool:
    """Run container `b` to its end; False when its creation was refused, as the place of a mount was a link then."""
    try:
        box.create("b", config)
    except errors.SetupFailed:
        return False
    assert box.ended("b").exit_code == 0
    return True


def test_the_place_of_a_mount(box: Box, exchange: Exchange, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: between the check of a mount's place and the mount, or the making of its folder,
    another container exchanges a folder on the way for a link to the host.

    It fails when `paths.make_folder` makes the missing folders by one path (os.makedirs): some are the host's then.
    """
    canary = tmp_path / "canary"
    volume = exchange(canary)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mark").write_text("mark")
    started = 0
    for number in range(_STARTS):
        config = box.config("b", "true")
        config["mounts"] += [
            bind(box, volume, "/v"),
            {"destination": f"/v/x/made{number}", "type": "tmpfs", "source": "tmpfs"},
            bind(box, tmp_path / "data", "/v/x/sub"),
        ]
        started += _started(box, config)
        box.delete("b", force=True)
        assert [path.name for path in canary.iterdir()] == ["secret"], number
    assert started > _STARTS // 10, "the exchange must leave enough starts alive to tell anything"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mark"]


def test_masked_and_readonly_paths(box: Box, exchange: Exchange, tmp_path: Path) -> None:
    """CVE-2025-52881, CVE-2023-27561: while masks are put on, and read-only copies of folders over themselves, the
    folder is exchanged for a link to the host, so that the copy is one of the host's folder.

    It fails when `rootfs.restrict` copies the folder by its path, and not by the descriptor of the place it covers.
    """
    canary = tmp_path / "canary"
    volume = exchange(canary)
    started = 0
    for _ in range(_STARTS):
        config = box.config("b", "sh", "-c", _SEES)
        config["mounts"].append(bind(box, volume, "/v"))
        config["linux"]["maskedPaths"] += ["/v/x/file", "/v/x/sub"]
        config["linux"]["readonlyPaths"] += ["/v/x"]
        if _started(box, config):
            started += 1
            assert "the host's" not in box.output("b")
            assert "/canary" not in box.output("b")
        box.delete("b", force=True)
        assert [(path.name, path.read_text()) for path in canary.iterdir()] == [("secret", "the host's")]
    assert started > _STARTS // 10, "the exchange must leave enough starts alive to tell anything"


def test_kernel_parameters(box: Box, exchange: Exchange, tmp_path: Path) -> None:
    """CVE-2025-52881: a volume is mounted on a folder that is exchanged for a link to /proc, so that what is written
    to /proc/sys goes to a file of the attacker's choice instead, or to another file of /proc by way of a link.

    It fails when `rootfs` guards /proc by the mount's destination, as written, instead of by the folder that was found.
    Behind that, parameters are written through a procfs that is mounted nowhere.
    """
    volume = exchange(Path("/proc"), "sys/kernel")
    decoy = tmp_path / "decoy"
    decoy.mkdir()
    (decoy / "shmmni").write_text("decoy")
    (decoy / "domainname").symlink_to("/proc/sys/kernel/core_pattern")
    before = host_parameters()
    told = []
    for _ in range(_STARTS):
        config = box.config("b", "cat", "/proc/sys/kernel/shmmni")
        config["mounts"] += [bind(box, volume, "/v"), bind(box, decoy, "/v/x/sys/kernel")]
        config["linux"]["sysctl"]["kernel.shmmni"] = "77"
        # Refused as InvalidSpec where the volume would lie over /proc.
        with contextlib.suppress(errors.InvalidSpec):
            if _started(box, config):
                told.append(box.output("b").splitlines()[-1])
        box.delete("b", force=True)
        assert (decoy / "shmmni").read_text() == "decoy"
    assert len(told) > _STARTS // 10, "the exchange must leave enough starts alive to tell anything"
    assert set(told) == {"77"}
    assert host_parameters() == before
