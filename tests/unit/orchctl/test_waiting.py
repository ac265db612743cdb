"""What a command that waits asks the server to tell it."""

from orchctl import waiting
from orchctl.progress import Target


def targets(count: int) -> list[Target]:
    return [
        Target(kind="service", namespace="default", name=f"s{number}", id=f"id{number}", generation=1)
        for number in range(count)
    ]


def test_a_few_services_are_watched_one_by_one() -> None:
    """Nobody is told of the tasks of others."""
    found = waiting._selections(targets(2))
    assert [(one.kind, one.service) for one in found] == [("service", ""), ("task", "s0"), ("task", "s1")]


def test_many_services_fit_into_one_watch() -> None:
    """A server takes no more than 32 selections."""
    found = waiting._selections(targets(1_000))
    assert [(one.kind, one.namespace, one.service) for one in found] == [
        ("service", "default", ""),
        ("task", "default", ""),
    ]
