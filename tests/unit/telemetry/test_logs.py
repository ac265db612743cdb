"""The program's log does not repeat itself, and is for programs or for people."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime

import pytest
import structlog

from telemetry import logs


class Clock:
    """Stands in for `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(logs, "time", made)
    return made


def logged(processor: logs.Unrepeated, method: str, event: str, **fields: object) -> bool:
    try:
        processor(None, method, {"event": event, **fields})
    except structlog.DropEvent:
        return False
    return True


def test_the_same_warning_is_logged_once_in_a_while(clock: Clock) -> None:
    processor = logs.Unrepeated()
    assert logged(processor, "warning", "no store", reason="refused", failures=1)
    assert not logged(processor, "warning", "no store", reason="refused", failures=2)
    clock.now += logs.REPEAT_AFTER_S
    assert logged(processor, "warning", "no store", reason="refused", failures=3)


def test_another_reason_or_another_level_is_logged_at_once(clock: Clock) -> None:
    processor = logs.Unrepeated()
    assert logged(processor, "warning", "no store", reason="refused")
    assert logged(processor, "warning", "no store", reason="timeout")
    assert all(logged(processor, "error", "broken") for _ in range(3))
    assert clock.now == 1000.0


def test_what_is_remembered_is_bounded(clock: Clock) -> None:
    processor = logs.Unrepeated()
    for number in range(10 * logs.MAX_REMEMBERED):
        clock.now += 0.001
        assert logged(processor, "warning", "no store", reason=str(number))
    assert len(processor._logged) == logs.MAX_REMEMBERED


SCRIPT = """
import structlog
from telemetry import logs
logs.configure("info", {form!r}, program="orch-agent", node="n1")
log = structlog.get_logger()
log.debug("nobody sees this")
log.info("started", pid=7)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("it failed", name="ä")
"""


def lines(form: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """What a program with this format writes."""
    script = [sys.executable, "-c", SCRIPT.format(form=form)]
    done = subprocess.run(script, env=environment, stderr=subprocess.PIPE, text=True, timeout=60, check=True)
    return done.stderr.splitlines()


@pytest.mark.parametrize("form", ["json", "auto"])
def test_json_is_a_line_an_event_with_the_same_fields_first(form: str) -> None:
    """`auto` is JSON where standard error is no terminal."""
    started, failed = map(json.loads, lines(form))
    assert list(started) == ["timestamp", "level", "event", "program", "node", "pid"]
    assert started | {"timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "event": "started",
        "program": "orch-agent",
        "node": "n1",
        "pid": 7,
    }
    assert datetime.fromisoformat(started["timestamp"]).tzinfo is not None
    assert failed["name"] == "ä"
    assert "ZeroDivisionError" in failed["exception"]


def test_console_is_words_with_the_traceback_behind() -> None:
    first, second, *traceback = lines("console")
    assert "started" in first
    assert "pid=7" in first
    assert "it failed" in second
    assert any("ZeroDivisionError" in line for line in traceback)


def test_auto_is_words_in_a_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        script = [sys.executable, "-c", SCRIPT.format(form="auto")]
        subprocess.run(script, stderr=theirs, timeout=60, check=True)
        said = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "started" in said
    assert '"event"' not in said


def test_in_the_journal_each_line_says_how_grave_it_is() -> None:
    """A pipe stands in for systemd's socket: the variable names its device and inode, as systemd's does."""
    ours, theirs = os.pipe()
    stat = os.fstat(theirs)
    try:
        environment = {**os.environ, logs.JOURNAL: f"{stat.st_dev}:{stat.st_ino}"}
        script = [sys.executable, "-c", SCRIPT.format(form="auto")]
        subprocess.run(script, stderr=theirs, env=environment, timeout=60, check=True)
        said = os.read(ours, 65536).decode().splitlines()
    finally:
        os.close(ours)
        os.close(theirs)
    assert [line[:4] for line in said] == ["<6>{", "<3>{"]
    assert json.loads(said[1][3:])["event"] == "it failed"


def test_a_child_with_another_standard_error_is_not_in_the_journal() -> None:
    assert all(line.startswith("{") for line in lines("json", {**os.environ, logs.JOURNAL: "1:2"}))


def test_two_tasks_with_one_trouble_are_two_warnings(clock: Clock) -> None:
    processor = logs.Unrepeated()
    assert clock.now == 1000.0
    assert logged(processor, "warning", "step failed", task="a", error="no image")
    assert logged(processor, "warning", "step failed", task="b", error="no image")
    assert not logged(processor, "warning", "step failed", task="a", error="no image")
