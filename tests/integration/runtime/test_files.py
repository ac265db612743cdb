"""The container's file tree: root, mounts, and images that try to lead them elsewhere."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runtime import errors
from tests.integration.runtime.conftest import Box

pytestmark = pytest.mark.root


def test_readonly_root(box: Box) -> None:
    """root.readonly covers the root and leaves the tmpfs mounts writable."""
    config = box.config("a", "sh", "-c", "(echo > /file) 2>&1; echo ok > /dev/shm/file && cat /dev/shm/file")
    config["root"]["readonly"] = True
    box.create("a", config)
    box.ended("a")
    assert "Read-only file system" in box.output("a")
    assert box.output("a").endswith("ok")


def test_bind_mounts(box: Box, tmp_path: Path) -> None:
    """Folders and files are bound, read-only where asked; the source is the host's, the target the container's."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("from the host")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost")

    def change(config: dict[str, Any]) -> None:
        config["mounts"] += [
            {"destination": "/data", "source": str(tmp_path / "data"), "options": ["rbind", "ro"]},
            {"destination": "/deep/data", "source": str(tmp_path / "data"), "options": ["rbind", "rw", "rslave"]},
            {"destination": "/etc/hosts", "type": "bind", "source": str(tmp_path / "hosts"), "options": ["ro"]},
            {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700"]},
        ]

    script = (
        "cat /data/file; (echo > /data/new) 2>&1; echo back > /deep/data/back; echo; cat /etc/hosts; echo;"
        "(echo > /etc/hosts) 2>&1; dd if=/dev/zero of=/scratch/f bs=1M count=2 2>&1 | tail -1"
    )
    out = box.run("a", "sh", "-c", script, change=change)
    assert out.startswith("from the host")
    assert out.count("Read-only file system") == 2
    assert (tmp_path / "data/back").read_text() == "back\n"
    assert not (tmp_path / "data/new").exists()


def test_root_is_a_plain_folder(box: Box) -> None:
    """Without an overlay the bundle's root.path is the root."""
    config = box.config("a", "ls", "/")
    config["root"]["path"] = str(box.image)
    box.create("a", config, overlay=None)
    assert box.ended("a").exit_code == 0
    assert "home" in box.output("a").split()


def test_nothing_is_mounted_on_the_host(box: Box) -> None:
    """The overlay and everything below it exist in the container's mount namespace only."""
    before = Path("/proc/self/mountinfo").read_text()
    box.create("a", box.config("a", "sleep", "100"))
    assert Path("/proc/self/mountinfo").read_text() == before


def test_many_layers(box: Box, tmp_path: Path) -> None:
    """A hundred layers with long paths are above one page of mount options."""
    lower = []
    for number in range(100):
        layer = tmp_path / ("layer-" + "x" * 100) / str(number)
        layer.mkdir(parents=True)
        (layer / f"file{number}").write_text(str(number))
        (layer / "top").write_text(str(number))
        lower.append(str(layer))
    overlay = box.overlay("a")
    overlay["lower"] = [*lower, *overlay["lower"]]
    box.create("a", box.config("a", "sh", "-c", "ls / | grep -c file; cat /top"), overlay=overlay)
    box.ended("a")
    assert box.output("a").split() == ["100", "0"]


def test_missing_layer_is_named(box: Box) -> None:
    """The kernel says only that something is not there; the message says what."""
    overlay = box.overlay("a")
    overlay["lower"].append("/no/such/layer")
    with pytest.raises(errors.SetupFailed, match=r"overlay: /no/such/layer is not a folder"):
        box.create("a", box.config("a", "true"), overlay=overlay)


def test_overlay_on_overlay_is_explained(box: Box, tmp_path: Path) -> None:
    """The kernel's EINVAL becomes the reason and the remedy."""
    for name in ("low", "up", "wk", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/low,upperdir={tmp_path}/up,workdir={tmp_path}/wk"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], check=True)
    try:
        overlay = box.overlay("a")
        for name in ("upper", "work"):
            overlay[name] = str(tmp_path / "merged" / name)
            Path(overlay[name]).mkdir()
        with pytest.raises(errors.SetupFailed, match=r"is itself on an overlay file system.*put the state folder on"):
            box.create("a", box.config("a", "true"), overlay=overlay)
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)


def test_image_with_hostile_links(box: Box, tmp_path: Path) -> None:
    """A link in the place of /dev or /proc never leads anything onto the host."""
    canary = tmp_path / "canary"
    canary.mkdir()
    upper = Path(box.overlay("a")["upper"])
    (upper / "etc").mkdir()
    (upper / "etc/link").symlink_to(canary)
    config = box.config("a", "true")
    config["mounts"].append({"destination": "/etc/link/sub", "type": "tmpfs", "source": "x"})
    box.create("a", config)
    box.ended("a")
    assert list(canary.iterdir()) == []
    assert (upper / str(canary).lstrip("/") / "sub").is_dir(), "the link was followed inside the root"
    for name in ("dev", "proc"):
        bad = Path(box.overlay(name)["upper"])
        os.mknod(bad / name, 0o20000, 0)  # a whiteout, so that the layer's folder is gone
        (bad / name).unlink()
        (bad / name).symlink_to(canary)
        config = box.config(name, "true")
        if name == "dev":
            config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
        with pytest.raises(errors.SetupFailed):
            box.create(name, config)
        assert list(canary.iterdir()) == []


def test_proc_cannot_be_covered(box: Box, tmp_path: Path) -> None:
    """A volume over /proc, or into it, is refused."""
    for destination in ("/proc", "/proc/self", "/proc/sys"):
        config = box.config("a", "true")
        config["mounts"].append({"destination": destination, "source": str(tmp_path), "options": ["bind"]})
        with pytest.raises(errors.InvalidSpec, match="/proc"):
            box.create("a", config)


@pytest.mark.parametrize("cwd", [f"/proc/self/fd/{number}" for number in range(3, 12)])
def test_working_directory_cannot_leave(box: Box, cwd: str) -> None:
    """No descriptor of the set-up is a way to the host's files."""
    config = box.config("a", "sh", "-c", "ls -d /work")
    config["process"]["cwd"] = cwd
    with pytest.raises(errors.SetupFailed):
        box.create("a", config)
