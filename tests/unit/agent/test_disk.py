"""How records are written: in place while they are short, and never half."""

import os
from pathlib import Path

import pytest

from agent.adapters.disk import PAGE_BYTES, FileDisk
from agent.adapters.layout import Layout
from agent.core.record import Record
from agent.errors import Temporary
from tests.support.aio import bounded

SHORT, LONG = Record(address="10.0.0.2"), Record(message="x" * PAGE_BYTES)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@bounded(10)
async def test_short_ones_are_written_in_place_and_long_ones_beside(tmp_path: Path) -> None:
    disk, path = FileDisk(Layout(tmp_path)), Layout(tmp_path).record("web-1-a")
    await disk.save_record("web-1-a", SHORT)
    first = path.stat()
    assert first.st_size == PAGE_BYTES
    assert path.parent.stat().st_mode & 0o777 == 0o700
    await disk.save_record("web-1-a", Record())
    assert path.stat().st_ino == first.st_ino
    with path.open() as still_open:  # or its number would be free to be given again
        await disk.save_record("web-1-a", LONG)
        assert path.stat().st_ino != os.fstat(still_open.fileno()).st_ino
    with path.open() as still_open:
        await disk.save_record("web-1-a", SHORT)
        assert path.stat().st_ino != os.fstat(still_open.fileno()).st_ino


@bounded(10)
async def test_a_full_disk_is_told_and_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FileDisk(Layout(tmp_path))
    for record in (SHORT, LONG, SHORT):
        await disk.save_record("web-1-a", record)
    before = descriptors()
    monkeypatch.setattr(os, "write", lambda _fd, data: len(data) // 2)
    with pytest.raises(Temporary, match=r"cannot write .*record.json: No space left on device; make room on the disk"):
        await disk.save_record("web-2-b", SHORT)
    monkeypatch.undo()
    for record in (SHORT, LONG, SHORT):
        await disk.save_record("web-2-b", record)
    assert descriptors() == before
