"""Several layers at a time: results in order, and an end that leaves nothing running."""

import os
import threading

import pytest

from images import parallel

BOTH = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor: nothing is done beside anything")


def test_results_come_in_the_order_of_the_items() -> None:
    assert parallel.each(lambda number: number * 2, range(50), title="t") == [number * 2 for number in range(50)]
    assert parallel.each(str, [], title="t") == []


@BOTH
def test_two_are_done_at_a_time() -> None:
    """Each waits for the other, so one after the other would never end."""
    meeting = threading.Barrier(2, timeout=10)
    assert sorted(parallel.each(lambda _: meeting.wait(), [1, 2], title="t")) == [0, 1]


@BOTH
def test_the_first_failure_ends_the_rest_and_nothing_runs_on() -> None:
    begun: list[int] = []
    running = threading.Event()
    last = 1_000

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ValueError("broken")
        running.wait(0.01)

    with pytest.raises(ValueError, match="broken"):
        parallel.each(work, range(last), title="t")
    after = list(begun)
    assert last - 1 not in after
    assert begun == after
    assert not [one.name for one in threading.enumerate() if one.name.startswith("t_")]
