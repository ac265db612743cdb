"""Tasks leave nodes that are drained: when another works in their place, or as their service allows, or in the end."""

import pytest

from controlplane.core import eligibility, plan, replicated
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS


def reconcile(
    service: pb.Service,
    members: list[pb.Task],
    draining: frozenset[str] = frozenset(),
    deadlines: dict[str, int] | None = None,
) -> plan.Plan:
    situation = replicated.Situation(
        service=service,
        revisions=[build.revision(service)],
        tasks=members,
        draining=draining,
        deadlines=deadlines or {},
        now_ms=NOW_MS,
    )
    return replicated.reconcile(situation, build.suffixes())


def written(made: plan.Plan) -> list[pb.Task]:
    return [change.value for change in made.changes if isinstance(change.value, pb.Task)]


def stopped(made: plan.Plan) -> list[str]:
    return [task.meta.id for task in written(made) if task.desired_state > pb.DESIRED_STATE_RUNNING]


N1 = frozenset({"n1"})


def test_a_fenced_task_leaves_before_another_comes() -> None:
    """Though nothing is said of the order: two would run for a while."""
    service = build.service(replicas=2)
    service.spec.on_node_loss.fence = True
    members = [build.task(1, node="n1"), build.task(2, node="n2")]
    made = reconcile(service, members, N1)
    assert [task.meta.id for task in written(made)] == stopped(made) == [members[0].meta.id]


def stop_first(replicas: int, **disruption: str) -> pb.Service:
    """A service of which no two tasks may stand in a slot."""
    service = build.service(replicas=replicas)
    service.spec.update.order = pb.UPDATE_ORDER_STOP_FIRST
    service.spec.disruption.CopyFrom(pb.DisruptionPolicy(**disruption))
    return service


def moved(here: pb.Task, state: states.State, node: str = "n2", **status: object) -> pb.Task:
    """The task that was made for one that leaves."""
    coming = build.task(here.slot, state, node=node, **status)  # type: ignore[arg-type]  # fields by name
    coming.replaces = here.meta.id
    return coming


def test_a_task_leaves_when_another_works_in_its_place() -> None:
    here, there = build.task(1, node="n1"), build.task(2, node="n2")
    service = build.service(replicas=2)
    first = reconcile(service, [here, there], draining=N1)
    assert stopped(first) == []
    (made,) = written(first)
    assert (made.slot, made.replaces, made.revision_id) == (1, here.meta.id, here.revision_id)
    coming = moved(here, states.STARTING)
    assert written(reconcile(service, [here, coming, there], draining=N1)) == []
    works = moved(here, states.RUNNING)
    assert stopped(reconcile(service, [here, works, there], draining=N1)) == [here.meta.id]


def test_one_that_comes_for_another_is_not_wanted_where_nothing_leaves() -> None:
    """Its mark tells what it is there for, so that it may stay beside it; a better one without a mark is a double."""
    here = build.task(1, node="n1")
    coming = moved(here, states.STARTING)
    service = build.service(replicas=1)
    assert stopped(reconcile(service, [here, coming])) == []
    coming.replaces = ""
    assert stopped(reconcile(service, [here, coming])) == [coming.meta.id]


@pytest.mark.parametrize(
    ("disruption", "unready", "leave"),
    [
        ({}, 0, 1),
        ({}, 1, 0),
        ({"max_unavailable": "50%"}, 0, 2),
        ({"max_unavailable": "3"}, 1, 2),
        ({"min_available": "4"}, 0, 0),
        ({"min_available": "1"}, 0, 3),
        ({"max_unavailable": "0"}, 0, 0),
    ],
    ids=str,
)
def test_those_that_stop_first_leave_as_disruption_allows(disruption: dict[str, str], unready: int, leave: int) -> None:
    here = [build.task(slot, node="n1") for slot in range(1, 4)]
    there = build.task(4, node="n2", ready=not unready)
    made = reconcile(stop_first(4, **disruption), [*here, there], draining=N1)
    assert stopped(made) == [task.meta.id for task in here[:leave]]


@pytest.mark.parametrize("order", [pb.UPDATE_ORDER_START_FIRST, pb.UPDATE_ORDER_STOP_FIRST])
def test_after_the_deadline_nothing_is_waited_for(order: pb.UpdateOrder.ValueType) -> None:
    here = [build.task(slot, node="n1") for slot in (1, 2)]
    service = stop_first(2, min_available="2")
    service.spec.update.order = order
    before = reconcile(service, here, draining=N1, deadlines={"n1": NOW_MS + 1})
    assert (stopped(before), before.wake_at) == ([], NOW_MS + 1)
    after = reconcile(service, here, draining=N1, deadlines={"n1": NOW_MS})
    assert stopped(after) == [task.meta.id for task in here]
    elsewhere = reconcile(service, here, draining=N1, deadlines={"n2": NOW_MS})
    assert stopped(elsewhere) == []


def test_one_that_does_no_work_is_not_waited_for() -> None:
    first, last = build.task(1, node="n1", ready=False), build.task(2, node="n1", ready=False)
    made = reconcile(build.service(replicas=2), [first, last], draining=N1)
    assert stopped(made) == [first.meta.id, last.meta.id]


def test_one_whose_successor_ended_well_is_not_replaced_again() -> None:
    here = build.task(1, node="n1")
    service = build.service(replicas=1)
    service.spec.template.restart.condition = pb.RESTART_CONDITION_ON_FAILURE
    done = moved(here, states.COMPLETE)
    assert stopped(reconcile(service, [here, done], draining=N1)) == [here.meta.id]


def test_a_successor_that_fails_is_tried_again_after_a_while() -> None:
    here = build.task(1, node="n1")
    failed = moved(here, states.FAILED)
    failed.failures = 1
    made = reconcile(build.service(replicas=1), [here, failed], draining=N1)
    assert (written(made), made.wake_at) == ([], NOW_MS + 1_000)


def test_a_service_of_two_drained_nodes_leaves_both() -> None:
    """What came to a node that is drained now, too, goes on from there."""
    here = build.task(1, node="n1")
    second = moved(here, states.RUNNING)
    both = frozenset({"n1", "n2"})
    service = build.service(replicas=1)
    gone = stopped(reconcile(service, [here, second], draining=both))
    assert len(gone) == 1
    (left,) = [task for task in (here, second) if task.meta.id not in gone]
    (made,) = written(reconcile(service, [left], draining=both))
    assert made.replaces == left.meta.id


def test_a_taint_drives_out_the_revisions_that_do_not_stand_it_and_no_others() -> None:
    """While a rollout that drops the toleration stands still, tasks of the older revision are placed there and stay."""
    tainted = build.node("n1")
    tainted.spec.taints.add(key="spare", effect=pb.TAINT_EFFECT_NO_EXECUTE)
    service = build.service()
    old, new = build.revision(service, 1), build.revision(service, 2)
    old.template.placement.tolerations.add(key="spare")
    assert eligibility.driven_out([old, new], [tainted]) == {(new.meta.id, "n1")}
