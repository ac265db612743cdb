"""What a command that waits asks the server to tell it, and how it sorts what it is told."""

import pytest

from controlplane.api import watch
from orchctl import waiting
from orchctl.progress import Target
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from tests.support import samples


def targets(count: int, *, namespaces: int = 1) -> list[Target]:
    return [
        Target(
            kind="service", namespace=f"team-{number % namespaces}", name=f"s{number}", id=f"id{number}", generation=1
        )
        for number in range(count)
    ]


def test_a_few_services_are_watched_one_by_one() -> None:
    """Nobody is told of the tasks of others."""
    found = waiting._selections(targets(2))
    assert [(one.kind, one.service) for one in found] == [("service", ""), ("task", "s0"), ("task", "s1")]


@pytest.mark.parametrize("namespaces", [1, 16, 17, 40])
@pytest.mark.parametrize("count", [1, 16, 17, 31, 32, 40, 1_000])
def test_any_number_of_services_fits_into_one_watch(count: int, namespaces: int) -> None:
    """One by one as long as a server takes so many selections; then all of them together."""
    found = waiting._selections(targets(count, namespaces=namespaces))
    assert len(found) <= watch.MAX_SELECTIONS
    one_by_one = min(count, namespaces) + count <= watch.MAX_SELECTIONS
    assert sum(each.kind == "task" for each in found) == (count if one_by_one else 1)
    assert one_by_one or not any(each.namespace for each in found)


def test_the_tasks_of_a_target_are_those_there_are_now() -> None:
    view = waiting.View()
    target = Target.of(samples.service("hello"))
    for event in (samples.task(1), samples.task(2)):
        view.take(control.WatchResponse(changed=kinds.wrap(event)))
    assert [task.slot for task in view.tasks(target)] == [1, 2]
    view.take(control.WatchResponse(deleted=kinds.wrap(samples.task(1))))
    assert [task.slot for task in view.tasks(target)] == [2]
    assert view.tasks(Target.of(samples.service("other"))) == []
