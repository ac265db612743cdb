"""Log lines on their way to standard output."""

import pytest

from orchctl import logview
from protos.orch.v1 import control_pb2 as control

TIME_NS = 1_700_000_000_123_456_789


def line(text: bytes, *, task: str = "a", partial: bool = False, time_ns: int = TIME_NS) -> control.LogLine:
    return control.LogLine(task=task, text=text, partial=partial, time_ns=time_ns)


def test_a_pipe_gets_every_byte(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    logview.Writer(prefixed=False, timestamps=False).write(line(b"\x1b[31m\xff\x00"))
    logview.Writer.flush()
    assert capsysbinary.readouterr().out == b"\x1b[31m\xff\x00\n"


def test_lines_carry_task_and_time_when_asked(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    logview.Writer(prefixed=True, timestamps=True).write(line(b"hi"))
    logview.Writer.flush()
    assert capsysbinary.readouterr().out == b"a | 2023-11-14T22:13:20.123456789Z hi\n"


def test_pieces_of_one_line_are_put_together(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = logview.Writer(prefixed=True, timestamps=False)
    for piece in (line(b"one ", partial=True), line(b"line"), line(b"next")):
        writer.write(piece)
    logview.Writer.flush()
    assert capsysbinary.readouterr().out == b"a | one line\na | next\n"


def test_a_piece_is_not_joined_to_another_task(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = logview.Writer(prefixed=True, timestamps=False)
    for piece in (line(b"half", partial=True), line(b"whole", task="b"), line(b"rest")):
        writer.write(piece)
    logview.Writer.flush()
    assert capsysbinary.readouterr().out == b"a | half\nb | whole\na | rest\n"


def test_a_stream_that_broke_goes_on_without_a_line_twice() -> None:
    seen = logview.Seen()
    asked = control.LogsRequest(service="hello", follow=True, tail=5)
    assert seen.resumed(asked) == asked
    seen.begun = True
    assert seen.is_new(line(b"1", task="a", time_ns=5_000_000))
    assert seen.is_new(line(b"1", task="b", time_ns=9_000_000))
    again = seen.resumed(asked)
    assert (again.since, again.tail) == (5, -1)
    assert not seen.is_new(line(b"1", task="a", time_ns=5_000_000))
    assert not seen.is_new(line(b"1", task="b", time_ns=9_000_000))
    assert seen.is_new(line(b"2", task="a", time_ns=5_000_001))
    assert seen.is_new(line(b"1", task="c", time_ns=1))


def test_a_stream_that_broke_before_any_line_asks_for_the_same_again() -> None:
    """Not for all lines there ever were."""
    seen = logview.Seen()
    seen.begun = True
    asked = control.LogsRequest(service="hello", follow=True, tail=5)
    assert seen.resumed(asked) == asked


def test_lines_of_the_same_moment_are_all_new_in_one_stream() -> None:
    seen = logview.Seen()
    assert seen.is_new(line(b"1"))
    assert seen.is_new(line(b"2"))
