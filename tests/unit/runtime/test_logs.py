"""Records, rotation, and what happens when the disk is full."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from runtime import logs

NOW = 1_700_000_000_123_456_789


def test_timestamp() -> None:
    """RFC 3339 with nanoseconds."""
    assert logs.timestamp(NOW) == b"2023-11-14T22:13:20.123456789Z"


def joined(records: bytes) -> bytes:
    """The stream that records stand for."""
    out = b""
    for record in records.splitlines():
        _, _, tag, line = record.split(b" ", 3)
        assert len(line) <= logs.MAX_LINE_BYTES
        out += line + (b"\n" if tag == b"F" else b"")
    return out


@given(st.lists(st.text("ab \n", max_size=200).map(lambda text: text.replace("b", "b" * 7000).encode()), max_size=8))
def test_records_hold_the_stream(chunks: list[bytes]) -> None:
    """However the stream is cut into chunks, the records give it again, in pieces of 16 KiB at most."""
    splitter = logs.LineSplitter("stdout")
    records = b"".join(splitter.records(chunk, NOW) for chunk in chunks) + splitter.finish(NOW)
    stream = b"".join(chunks)
    assert joined(records).removesuffix(b"\n") == stream.removesuffix(b"\n")


def test_line_of_exactly_the_limit_is_whole() -> None:
    """16 KiB and its newline are one F record."""
    records = logs.LineSplitter("stderr").records(b"x" * logs.MAX_LINE_BYTES + b"\n", NOW)
    assert re.fullmatch(rb"\S+ stderr F x+\n", records)


def test_rotation_is_between_records(tmp_path: Path) -> None:
    """No record is torn, sizes are kept, and old files go."""
    path = tmp_path / "log"
    log = logs.LogFile(str(path), max_bytes=5000, max_files=3)
    record = logs.timestamp(NOW) + b" stdout F " + b"x" * 100 + b"\n"
    for _ in range(20):
        log.write(record * 10)
    log.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "log.00000004", "log.00000005"]
    for file in tmp_path.iterdir():
        assert file.stat().st_size <= 5000
        assert set(file.read_bytes().splitlines(keepends=True)) == {record}


def test_appending_goes_on_after_a_restart(tmp_path: Path) -> None:
    """A file that is there is continued, and its size counts."""
    path = tmp_path / "log"
    for _ in range(2):
        log = logs.LogFile(str(path), max_bytes=4096, max_files=2)
        log.write(b"x" * 3000 + b"\n")
        log.close()
    assert path.stat().st_size == 3001
    assert (tmp_path / "log.00000001").stat().st_size == 3001


def test_loss_is_counted_and_told(tmp_path: Path) -> None:
    """When writing works again, a record says how much is missing."""
    log = logs.LogFile("/dev/full", max_bytes=4096, max_files=1)
    log.write(b"x" * 99 + b"\n")
    log.write(b"y" * 49 + b"\n")
    assert log.lost_bytes_total == 150
    log._path = str(tmp_path / "log")
    log._open()
    log.write(b"z\n")
    log.close()
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert b"[150 bytes of output were lost" in lines[0]
    assert lines[1:] == [b"z"]
