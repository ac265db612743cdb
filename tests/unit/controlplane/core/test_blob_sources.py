"""Who gives a layer to whom: one copy from the control plane becomes many."""

from controlplane.core import blob_sources
from controlplane.core.blob_sources import Answer, Giver


def giver(address: str, *, zone: str = "", busy: int = 0) -> Giver:
    return Giver(address=address, zone=zone, busy=busy)


def choose(*givers: Giver, zone: str = "", failed: tuple[str, ...] = (), here: bool = True, given: int = 0) -> Answer:
    return blob_sources.choose(givers, zone=zone, failed=failed, here=here, given_here=given)


def test_the_first_get_it_from_the_control_plane_and_the_others_wait() -> None:
    assert choose() == Answer(here=True)
    assert choose(given=blob_sources.FROM_HERE).is_empty
    assert choose(here=False).is_empty


def test_nodes_that_have_it_are_asked_instead_of_the_control_plane() -> None:
    assert choose(giver("a")) == Answer(addresses=("a",))
    assert choose(giver("a", busy=blob_sources.FROM_NODE)).is_empty, "it is free again soon"


def test_the_same_zone_comes_first_then_the_least_busy() -> None:
    givers = [giver("a", busy=2), giver("b", busy=1), giver("c", zone="x", busy=2), giver("d")]
    assert choose(*givers, zone="x").addresses == ("c", "d", "b")


def test_who_was_tried_in_vain_is_left_out_and_the_control_plane_is_the_last_way() -> None:
    assert choose(giver("a"), giver("b"), failed=("a",)).addresses == ("b",)
    assert choose(giver("a"), failed=("a",)) == Answer(here=True)


def test_who_has_failed_often_does_not_try_everybody_else() -> None:
    many = [giver(f"n{number}") for number in range(200)]
    failed = ("n1", "n2", "n3")
    assert choose(*many, failed=failed) == Answer(here=True)
    assert not choose(*many, failed=failed[1:]).here
    assert choose(*many, failed=failed, here=False).addresses
    assert choose(*many, failed=failed, given=blob_sources.FROM_HERE).addresses


def test_fifty_nodes_take_two_copies_from_the_control_plane() -> None:
    """Round after round, everybody who waits asks; whoever got it gives it in the next round."""
    have: list[str] = []
    waiting = [f"n{number}" for number in range(50)]
    from_here = rounds = 0
    while waiting:
        rounds += 1
        busy = dict.fromkeys(have, 0)
        got = []
        given_here = 0
        for node in waiting:
            answer = choose(*(giver(one, busy=busy[one]) for one in have), given=given_here)
            if answer.here:
                given_here += 1
                got.append(node)
            elif answer.addresses:
                busy[answer.addresses[0]] += 1
                got.append(node)
        from_here += given_here
        waiting = [node for node in waiting if node not in got]
        have += got
    assert (from_here, rounds) == (2, 4), "2, 8, 32, 50"
