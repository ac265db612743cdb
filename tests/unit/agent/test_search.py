"""The way to the leader: who is dialed, for how long, and how soon after the last one."""

import random

import pytest

from agent.search import AGAIN_TIMEOUT_S, FIRST_REST_S, LONGEST_CONNECT_S, LONGEST_REST_S, Search
from agent.servers import Servers

FEW = ("cp1", "cp2", "cp3")


def search(*servers: str) -> Search:
    return Search(Servers(servers or FEW), random.Random(1))


def lost() -> Search:
    """One whose session with cp1 was lost just now."""
    found = search()
    leader = found.next()
    found.held()
    found.failed(leader)
    return found


def test_a_lost_leader_is_dialed_once_more_and_not_for_long() -> None:
    """Whether it lives shows at once; and the rest before is short."""
    found = search()
    first = found.next()
    found.held()
    assert found.failed(first) <= FIRST_REST_S
    again = found.next()
    assert (again.address, again.patience_s, again.lost) == ("cp1", AGAIN_TIMEOUT_S, "")


def test_whoever_is_asked_next_hears_of_the_lost_leader() -> None:
    """Until there is a session again, and not longer."""
    found = lost()
    found.failed(found.next())
    asked = found.next()
    assert (asked.address, asked.lost) == ("cp2", "cp1")
    assert asked.patience_s > AGAIN_TIMEOUT_S
    found.redirected(asked, "cp3")
    assert found.next().lost == "cp1"
    found.held()
    assert found.next().lost == ""


def test_the_first_redirect_is_followed_at_once_even_after_failures() -> None:
    """A leader that is silent costs one attempt, and nothing after it."""
    found = lost()
    found.failed(found.next())
    assert found.redirected(found.next(), "cp3") == 0
    named = found.next()
    assert (named.address, named.named) == ("cp3", True)


def test_redirects_are_followed_more_and_more_slowly() -> None:
    """Whoever they name."""
    found = lost()
    rests = [found.redirected(found.next(), f"cp{number % 2}") for number in range(12)]
    assert rests[0] == 0
    assert rests[1] > 0
    assert LONGEST_REST_S / 2 <= rests[-1] <= LONGEST_REST_S


def test_one_that_knows_of_no_leader_is_asked_again_after_the_others() -> None:
    """And after a rest."""
    found = search()
    asked = []
    for _ in range(4):
        asked.append(attempt := found.next())
        assert found.redirected(attempt, "") > 0
    assert [one.address for one in asked] == ["cp1", "cp2", "cp3", "cp1"]
    assert not any(one.named for one in asked)


@pytest.mark.parametrize(("failed", "patience_s"), [(0, 1), (2, 1), (3, 2), (5, 2), (6, 4), (9, LONGEST_CONNECT_S)])
def test_patience_grows_with_each_round(failed: int, patience_s: float) -> None:
    """When a thousand agents come back, a handshake takes its time."""
    found = search()
    for _ in range(failed):
        found.failed(found.next())
    assert found.next().patience_s == patience_s


def test_a_leader_that_was_named_and_does_not_answer_counts_as_lost() -> None:
    """The follower that has named it does not know yet."""
    found = search()
    found.redirected(found.next(), "cp3")
    found.failed(found.next())
    assert found.next().lost == "cp3"


def test_a_session_makes_everything_new() -> None:
    """What came before it counts no more, neither the rests nor the patience."""
    found = search()
    for _ in range(9):
        found.failed(found.next())
    last = found.next()
    found.held()
    assert found.redirected(last, "cp2") == 0
    assert found.next().patience_s == 1
