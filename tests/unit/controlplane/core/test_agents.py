"""What goes to agents (assignments) and what comes back (reports)."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import assignments, garbage, reports
from controlplane.core.endpoint_table import Difference
from protos import states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build

NETWORK = wire.NodeNetwork(cluster_range="10.112.0.0/16", subnet="10.112.1.0/24")
SERVICE = build.service()
REVISIONS = {one.meta.id: one for one in (build.revision(SERVICE, 1), build.revision(SERVICE, 2, image="new"))}
NO_SERVICES = Difference(number=1)


def work(tasks: Sequence[pb.Task], revisions: Mapping[str, pb.Revision] = REVISIONS) -> assignments.Work:
    return assignments.Work(tasks=tasks, revisions=revisions, network=NETWORK)


def apply(
    state: dict[str, pb.Task], revisions: set[str], message: wire.Assignment
) -> tuple[dict[str, pb.Task], set[str]]:
    """What an agent does with an assignment."""
    if message.type == wire.Assignment.TYPE_COMPLETE:
        state, revisions = {}, set()
    state = {**state, **{task.meta.id: task for task in message.tasks}}
    revisions = (revisions | {one.meta.id for one in message.revisions}) - set(message.removed_revisions)
    return {name: task for name, task in state.items() if name not in message.removed_tasks}, revisions


def test_the_first_assignment_is_complete() -> None:
    message, told = assignments.complete(work([build.task(1)], REVISIONS), NO_SERVICES, frozenset(), 6)
    assert message.type == wire.Assignment.TYPE_COMPLETE
    assert (message.results_in, told.sequence) == (7, 7)
    assert [one.meta.id for one in message.revisions] == ["web-1-id-web"], "only the revisions that are needed"
    assert message.network == NETWORK


def test_nothing_new_is_no_message() -> None:
    tasks = [build.task(1)]
    _, told = assignments.complete(work(tasks, REVISIONS), NO_SERVICES, frozenset(), 0)
    assert assignments.incremental(told, work(tasks), NO_SERVICES, frozenset()) == (None, told)


def test_an_agents_own_status_is_not_sent_back_to_it() -> None:
    task = build.task(1, states.STARTING)
    _, told = assignments.complete(work([task], REVISIONS), NO_SERVICES, frozenset(), 0)
    task.status.state = states.RUNNING
    assert assignments.incremental(told, work([task]), NO_SERVICES, frozenset())[0] is None


def test_a_wish_to_stop_and_an_end_that_the_leader_decided_are_sent() -> None:
    task = build.task(1, ident="web-1-a")
    _, told = assignments.complete(work([task], REVISIONS), NO_SERVICES, frozenset(), 0)
    task.desired_state = pb.DESIRED_STATE_SHUTDOWN
    message, told = assignments.incremental(told, work([task]), NO_SERVICES, frozenset())
    assert message is not None
    assert (message.applies_to, message.results_in, len(message.tasks)) == (1, 2, 1)
    orphan = garbage.end_as_orphan(task, "lost", 0).value
    assert isinstance(orphan, pb.Task)
    message, _ = assignments.incremental(told, work([orphan]), NO_SERVICES, frozenset())
    assert message is not None


def test_a_task_whose_revision_has_not_arrived_waits_for_it() -> None:
    message, told = assignments.complete(work([build.task(1)], {}), NO_SERVICES, frozenset(), 0)
    assert not message.tasks
    later, _ = assignments.incremental(told, work([build.task(1)]), NO_SERVICES, frozenset())
    assert later is not None
    assert (len(later.tasks), len(later.revisions)) == (1, 1)


TASKS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(sorted(REVISIONS)),
        st.sampled_from([pb.DESIRED_STATE_RUNNING, pb.DESIRED_STATE_SHUTDOWN]),
    ),
    unique_by=lambda one: one[0],
)


@given(st.lists(TASKS, min_size=1, max_size=8))
def test_increments_lead_to_the_same_as_the_whole(
    history: list[list[tuple[int, str, pb.DesiredState.ValueType]]],
) -> None:
    worlds = [
        [
            build.task(slot, ident=f"web-{slot}-{name}", revision_id=name, desired=desired)
            for slot, name, desired in world
        ]
        for world in history
    ]
    message, told = assignments.complete(work(worlds[0], REVISIONS), NO_SERVICES, frozenset(), 0)
    state, revisions = apply({}, set(), message)
    for world in worlds[1:]:
        change, told = assignments.incremental(told, work(world), NO_SERVICES, frozenset())
        if change is not None:
            state, revisions = apply(state, revisions, change)
    assert {name: task.desired_state for name, task in state.items()} == {
        task.meta.id: task.desired_state for task in worlds[-1]
    }
    assert {task.revision_id for task in state.values()} == revisions


def test_a_node_is_told_of_the_others_that_can_be_reached() -> None:
    known = [build.node("n1"), build.node("n2"), build.node("n3")]
    known[2].status.subnet = ""
    settings = wire.NodeNetwork(cluster_range="10.112.0.0/16", mtu=1400)
    network = assignments.network_of(known[0], assignments.peers_of(known, settings, {}), settings)
    assert [(peer.node_id, peer.subnet) for peer in network.peers] == [("n2", "10.112.2.0/24")]
    assert (network.node_id, network.subnet, network.cluster_range, network.mtu) == (
        "n1",
        "10.112.1.0/24",
        "10.112.0.0/16",
        1400,
    )


def report(state: states.State, **status: object) -> wire.TaskReport:
    return wire.TaskReport(task_id="x", namespace="default", status=pb.TaskStatus(state=state, **status))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [
        (states.ASSIGNED, states.ACCEPTED, True),
        (states.ASSIGNED, states.RUNNING, True),
        (states.RUNNING, states.PREPARING, False),
        (states.RUNNING, states.FAILED, True),
        (states.FAILED, states.RUNNING, False),
        (states.ORPHANED, states.RUNNING, False),
        (states.STARTING, states.REJECTED, False),
        (states.RUNNING, states.ORPHANED, False),
    ],
)
def test_reports_only_raise_a_task(before: states.State, after: states.State, accepted: bool) -> None:
    assert (reports.accept(build.task(1, before), "n1", build.node(), report(after)) is not None) == accepted


def test_only_the_tasks_own_node_may_report_on_it() -> None:
    assert reports.accept(build.task(1, states.STARTING), "n2", build.node("n2"), report(states.RUNNING)) is None


def test_details_may_change_while_the_state_stays() -> None:
    change = reports.accept(build.task(1), "n1", build.node(), report(states.RUNNING, restarts=2))
    assert change is not None
    assert change.value.status.restarts == 2  # type: ignore[union-attr]
    assert reports.accept(change.value, "n1", build.node(), report(states.RUNNING, restarts=2)) is None  # type: ignore[arg-type]
