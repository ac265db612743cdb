"""Lines of several logs come out in the order of their times."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.log_merge import LogMerge
from protos.orch.v1 import control_pb2 as api

NO_LIMIT = 10_000


def lines(*times: int) -> list[api.LogLine]:
    return [api.LogLine(time_ns=time) for time in times]


def times(taken: list[api.LogLine]) -> list[int]:
    return [line.time_ns for line in taken]


def test_a_line_waits_until_every_awaited_log_has_shown_a_later_one() -> None:
    merge = LogMerge()
    merge.add("a", lines(1, 3))
    assert times(merge.take({"a", "b"}, NO_LIMIT)) == []
    merge.add("b", lines(2))
    assert times(merge.take({"a", "b"}, NO_LIMIT)) == [1, 2]
    assert times(merge.take({"a"}, NO_LIMIT)) == [3]


def test_a_log_that_is_not_awaited_holds_nothing_up() -> None:
    merge = LogMerge()
    merge.add("a", lines(1, 3))
    assert times(merge.take(set(), NO_LIMIT)) == [1, 3]


def test_no_more_than_the_limit_is_taken() -> None:
    merge = LogMerge()
    merge.add("a", lines(*range(10)))
    assert times(merge.take({"a"}, 4)) == [0, 1, 2, 3]
    assert merge.in_hand("a") == len(merge) == 6


def test_a_clock_that_was_set_back_does_not_turn_a_log_around() -> None:
    merge = LogMerge()
    merge.add("a", lines(5, 6, 2, 3))
    assert times(merge.take(set(), NO_LIMIT)) == [5, 6, 2, 3]


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 50)).map(sorted)), st.integers(1, 5))
def test_whatever_the_logs_hold_nothing_is_lost_and_all_is_in_order(logs: dict[str, list[int]], step: int) -> None:
    merge = LogMerge()
    taken: list[int] = []
    waiting = {name: list(log) for name, log in logs.items()}
    while any(waiting.values()):
        for name, log in waiting.items():
            merge.add(name, lines(*log[:step]))
            del log[:step]
        taken += times(merge.take({name for name, log in waiting.items() if log}, NO_LIMIT))
    taken += times(merge.take(set(), NO_LIMIT))
    assert taken == sorted(time for log in logs.values() for time in log)
