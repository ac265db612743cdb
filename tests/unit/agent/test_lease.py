"""Fenced tasks live by answers, counted from when the questions were sent."""

from agent.lease import Lease


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_nothing_is_asked_while_nothing_is_fenced() -> None:
    """And without an answer nothing is started."""
    lease = Lease(Clock())
    assert (lease.ask(), lease.until_s(10_000), lease.may_start(10_000)) == (0, 0, False)


def test_a_lease_counts_from_the_question() -> None:
    clock = Clock()
    lease = Lease(clock)
    lease.want(True)
    first = lease.ask()
    clock.now_s += 4
    lease.hear(first)
    assert lease.until_s(10_000) == 110
    assert lease.may_start(10_000)
    clock.now_s += 1
    assert not lease.may_start(10_000), "half of it is over"
    assert lease.may_start(20_000)


def test_answers_may_be_lost_late_or_doubled() -> None:
    """The newest question that was answered counts, and each only once."""
    clock = Clock()
    lease = Lease(clock)
    lease.want(True)
    numbers = []
    for _ in range(3):
        numbers.append(lease.ask())
        clock.now_s += 1
    lease.hear(numbers[1])
    assert lease.until_s(10_000) == 111
    lease.renewed.clear()
    for number in (numbers[0], numbers[1], 99):
        lease.hear(number)
    assert lease.until_s(10_000) == 111, "99 was never asked, and the others are no news"
    assert not lease.renewed.is_set()
