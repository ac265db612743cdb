"""Who waits is told so; who still sends does not wait."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from orchctl import patience

PATIENCE_S = 0.1
DETAILS = SimpleNamespace(method="/orch.v1.Control/ImportImage")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once it is said that nothing comes."""
    event = threading.Event()
    monkeypatch.setattr(patience, "PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(patience, "_tell", lambda *_: event.set())
    return event


def test_a_long_upload_is_no_wait(told: threading.Event) -> None:
    def slowly() -> Iterator[int]:
        yield 1
        assert not told.wait(5 * PATIENCE_S)
        yield 2

    answer = patience.Impatient("cp").intercept_stream_unary(lambda _, sent: list(sent), DETAILS, slowly())
    assert answer == [1, 2]
    assert not told.wait(2 * PATIENCE_S), "there is an answer"


def test_no_answer_to_an_upload_is_told(told: threading.Event) -> None:
    def wait(_details: Any, sent: Iterator[int]) -> bool:
        assert list(sent) == [1]
        return told.wait(10)

    assert patience.Impatient("cp").intercept_stream_unary(wait, DETAILS, iter([1]))
