"""The program's log does not repeat itself."""

import pytest
import structlog

from controlplane import logs


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
