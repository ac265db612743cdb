"""The log file under load, at the end of a container, and over rotations."""

import re
import signal
from pathlib import Path

import pytest

from runtime import client
from tests.integration.runtime.conftest import Box, wait_until

pytestmark = pytest.mark.root

RECORD = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] .*")


def rotated(path: Path) -> list[Path]:
    """The log's files, oldest first."""
    return [*sorted(path.parent.glob(f"{path.name}.*")), path]


def test_rotation_loses_no_line(box: Box) -> None:
    """A hundred thousand lines over many small files: every one is there, whole, and in order."""
    log = {"path": str(box.log_path("a")), "max_bytes": 100_000, "max_files": 200}
    box.create("a", box.config("a", "seq", "1", "100000"), log=log)
    assert box.ended("a").exit_code == 0
    files = rotated(box.log_path("a"))
    assert len(files) > 20
    assert all(file.stat().st_size <= 100_000 for file in files)
    lines = b"".join(file.read_bytes() for file in files).splitlines()
    assert all(RECORD.fullmatch(line) for line in lines)
    assert [int(line.split(b" ")[3]) for line in lines] == list(range(1, 100_001))


def test_rotation_keeps_the_asked_number_of_files(box: Box) -> None:
    """The oldest go; the last lines are there."""
    log = {"path": str(box.log_path("a")), "max_bytes": 10_000, "max_files": 3}
    box.create("a", box.config("a", "seq", "1", "20000"), log=log)
    box.ended("a")
    files = rotated(box.log_path("a"))
    assert len(files) == 3
    assert files[-1] == box.log_path("a")
    assert files[-1].read_bytes().splitlines()[-1].endswith(b" 20000")


def test_last_line_without_end(box: Box) -> None:
    """What is in the pipe when the program ends is read, also without a newline."""
    box.create("a", box.config("a", "printf", "one\ntwo"))
    box.ended("a")
    assert box.output("a") == "one\ntwo"


def test_long_lines_are_split(box: Box) -> None:
    """A line of 40,000 bytes is three records, P, P, F, which give the line again."""
    box.create("a", box.config("a", "sh", "-c", "printf '%040000d\\n' 5"))
    box.ended("a")
    records = [line.split(" ", 3) for line in box.log_path("a").read_text().splitlines()]
    assert [record[2] for record in records] == ["P", "P", "F"]
    assert "".join(record[3] for record in records) == "5".rjust(40_000, "0")


def test_unwritable_log_does_not_stop_the_container(box: Box) -> None:
    """On a full disk the container runs on; the loss is counted in its exit."""
    box.create("a", box.config("a", "sh", "-c", "seq 1 1000; exit 3"), log={"path": "/dev/full"})
    ended = box.ended("a")
    assert ended.exit_code == 3
    assert ended.lost_log_bytes > 1000


def test_surviving_descendant_does_not_hold_the_exit(box: Box) -> None:
    """Without a pid namespace a background process would keep the pipes open: it is ended with the container."""
    config = box.config("a", "sh", "-c", "sleep 1000 & echo started; exit 6")
    namespaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [entry for entry in namespaces if entry["type"] != "pid"]
    box.create("a", config)
    assert box.ended("a").exit_code == 6
    assert box.output("a") == "started"
    assert client.cgroup(box.root, "a").pids() == []


def test_monitor_memory_is_bounded_by_a_silent_line(box: Box) -> None:
    """Output without any newline is passed on in pieces, never gathered."""
    made = box.create("a", box.config("a", "sh", "-c", "head -c 50000000 /dev/zero | tr '\\0' x; sleep 100"))
    size = 50_000_000

    def written() -> int:
        return sum(file.stat().st_size for file in rotated(box.log_path("a")))

    wait_until(lambda: written() > min(size, 25_000_000), "the output is in the log", 20)
    peak = next(
        int(line.split()[1])
        for line in Path(f"/proc/{made['monitor_pid']}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    assert peak < 30_000, f"{peak} kB"
    with box.monitor("a") as monitor:
        monitor.kill(signal.SIGKILL)
    box.ended("a")
