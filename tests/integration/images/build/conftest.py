"""A bench with the base image, for each test its own, and a folder of this machine that builds must leave alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import building

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> building.Bench:
    made = building.Bench(tmp_path / "b")
    made.add_base()
    return made


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """Whatever a test does, it is as it was in the end: names, contents and times."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "secret").write_text("of this machine\n")
    for name in ("hosts", "resolv.conf", "x"):
        (folder / name).touch()  # empty, like what is taken away after a command
    before = _state(folder)
    yield folder
    assert _state(folder) == before


def _state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {path.name: path for path in folder.iterdir()}
    return {
        name: (path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.read_bytes()) for name, path in found.items()
    } | {"": (folder.stat().st_mtime_ns, folder.stat().st_ctime_ns, b"")}
