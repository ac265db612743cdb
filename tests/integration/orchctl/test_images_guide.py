"""The commands of docs/images.md, one after the other, as a person would type them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import orchctl, rootfs

pytestmark = pytest.mark.root

GUIDE = orchctl.ROOT / "docs" / "images.md"
# Typed as they are in the guide; what needs a daemon or a cluster is tried by tests of its own.
_ELSEWHERE = ("docker ", "| docker", "podman ", "image push", "orchctl commit")


def commands() -> list[str]:
    lines = [line.strip() for line in GUIDE.read_text().splitlines() if line.startswith("    ")]
    return [line for line in lines if not any(word in line for word in _ELSEWHERE)]


def test_the_guide_can_be_followed(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "orchctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m orchctl "$@"\n')
    program.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    rootfs.busybox(work / "rootfs")
    environ = {
        **orchctl.environment(tmp_path, "127.0.0.1:1"),
        "ORCH_IMAGE_STORE": str(tmp_path / "store"),
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
    }
    _prepare(work, environ)
    found = commands()
    assert len(found) > 12
    for line in found:
        done = subprocess.run(
            ["sh", "-c", line], cwd=work, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    left = subprocess.run(
        [program, "image", "ls", "-o", "name"], env=environ, capture_output=True, text=True, check=True
    )
    assert left.stdout.split() == ["hello:1", "other:1", "registry.example.com/team/hello:1"]
    assert (work / "layout" / "index.json").exists()


def _prepare(work: Path, environ: dict[str, str]) -> None:
    """What the guide takes for granted: somebody else's archive."""
    script = (
        "tar -C rootfs -cf other.tar ./bin/busybox && orchctl image import other.tar --name other:1 --store there && "
        "orchctl image save other:1 --store there | zstd -q > images.tar.zst"
    )
    subprocess.run(["sh", "-c", script], cwd=work, env=environ, check=True, capture_output=True, timeout=60)
