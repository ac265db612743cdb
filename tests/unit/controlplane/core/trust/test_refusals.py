"""Which refusals the audit log tells."""

from controlplane.core.trust.refusals import BURST, MAX_REFUSAL, Refusals
from protos.orch.v1 import trust_pb2 as pb

MINUTE_MS = 60_000


def refusal(name: str = "web", why: str = "may not") -> pb.AuditRecord:
    return pb.AuditRecord(call="Delete", objects=[f"service {name}"], refused=why)


def told(records: "list[pb.AuditRecord]") -> list[tuple[str, str]]:
    return [(one.objects[0], one.refused) for one in records]


def test_the_example_of_the_docstring() -> None:
    """20 at once, and then the newest of the others with their number."""
    refusals = Refusals()
    at_once = [refusals.take("node:n1", refusal(f"web{number}"), number * 5) for number in range(6_000)]
    assert sum(one is not None for one in at_once) == BURST
    assert list(refusals.due(30_000)) == []
    assert told([*refusals.due(2 * MINUTE_MS)]) == [
        ("service web5999", "may not; and 5,979 more since the refusal before")
    ]
    assert list(refusals.due(10 * MINUTE_MS)) == []


def test_each_caller_has_a_pace_of_their_own() -> None:
    """Whoever is refused once is told, whatever another does at the time."""
    refusals = Refusals()
    for _ in range(1_000):
        refusals.take("node:n1", refusal(), 0)
    assert refusals.take("person:ann", refusal(), 0) is not None


def test_the_next_that_is_told_says_how_many_were_not() -> None:
    """Whether another comes, or nobody is refused any more."""
    refusals = Refusals()
    for _ in range(BURST + 3):
        refusals.take("person:ann", refusal(), 0)
    after = refusals.take("person:ann", refusal("db"), MINUTE_MS)
    assert after is not None
    assert told([after]) == [("service db", "may not; and 3 more since the refusal before")]
    refusals.take("person:ann", refusal("last"), MINUTE_MS)
    assert told([*refusals.rest()]) == [("service last", "may not")]
    assert list(refusals.rest()) == []


def test_what_is_told_stays_short_and_ends_in_the_number() -> None:
    """However long the reason is."""
    refusals = Refusals()
    for _ in range(BURST + 2):
        refusals.take("person:ann", refusal(why="w" * 60_000), 0)
    (last,) = refusals.rest()
    assert len(last.refused) == MAX_REFUSAL
    assert last.refused.endswith("ww; and 1 more since the refusal before")


def test_who_has_not_been_refused_for_long_is_forgotten() -> None:
    """And nobody of whom something is untold."""
    refusals = Refusals()
    for number in range(100):
        refusals.take(f"node:n{number}", refusal(), 0)
    for _ in range(BURST):
        refusals.take("node:n0", refusal(), 0)
    refusals.due(MINUTE_MS)
    assert refusals.known == 1
    refusals.due((BURST + 2) * MINUTE_MS)
    assert refusals.known == 0
