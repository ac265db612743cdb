"""Nodes come, are lost and return; their tasks are given up after the time that their service grants, or not at all."""

import pytest

from controlplane.core import edits, nodes, plan
from controlplane.core import request_errors as errors
from protos import absence, states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

LOST = pb.NODE_STATE_DISCONNECTED
DOWN = pb.NODE_STATE_DOWN
READY = pb.NODE_STATE_READY


def session(name: str) -> nodes.Session:
    description = pb.NodeDescription(address="192.0.2.9")
    return nodes.Session(session_id="s", node_id=name, node_name=name, description=description, labels={"zone": "a"})


def observe(
    known: list[pb.Node],
    connected: list[str],
    *,
    now_ms: int = NOW_MS,
    grace_until: int = 0,
    bits: int = 24,
    record: pb.Cluster | None = None,
    range6: str = "",
    announced_ms: dict[str, int] | None = None,
) -> plan.Plan:
    return nodes.observe(
        {node.meta.id: node for node in known},
        {name: session(name) for name in connected},
        {node.meta.id for node in known} | set(connected),
        record,
        announced_ms=announced_ms or {},
        cluster_range="10.112.0.0/16",
        subnet_bits=bits,
        cluster_range6=range6,
        grace_until=grace_until,
        now_ms=now_ms,
    )


def written(made: plan.Plan) -> list[pb.Node]:
    return [change.value for change in made.changes if isinstance(change.value, pb.Node)]


def test_a_new_agent_becomes_a_ready_node_with_a_subnet_of_its_own() -> None:
    first, second = written(observe([], ["a", "b"]))
    assert first.status.state == READY
    assert first.meta.labels == {"zone": "a"}
    assert (first.status.subnet, second.status.subnet) == ("10.112.0.0/24", "10.112.1.0/24")


def test_a_subnet_that_a_node_has_is_not_given_to_another() -> None:
    known = build.node("n1")
    known.status.subnet = "10.112.0.0/24"
    made = written(observe([known], ["b"], grace_until=NOW_MS + 1))
    assert [node.status.subnet for node in made] == ["10.112.1.0/24"]


def test_a_range_without_a_free_subnet_is_told_in_the_node() -> None:
    taken = build.node("n1")
    taken.status.subnet = "10.112.0.0/16"
    (node,) = written(observe([taken], ["b"], grace_until=NOW_MS + 1, bits=16))
    assert node.status.message == "the cluster's range has no subnet left for it"


def test_the_users_labels_of_a_known_node_stay() -> None:
    known = build.node("n1", state=DOWN)
    known.meta.labels["zone"] = "user"
    (node,) = written(observe([known], ["n1"]))
    assert node.meta.labels == {"zone": "user"}


def test_a_lost_session_leads_over_disconnected_to_down_and_back() -> None:
    (lost,) = written(observe([build.node("n1")], []))
    assert (lost.status.state, lost.status.since) == (LOST, NOW_MS)
    waits = observe([lost], [], now_ms=NOW_MS + 10)
    assert waits == plan.Plan(wake_at=NOW_MS + nodes.DOWN_AFTER_MS)
    (down,) = written(observe([lost], [], now_ms=NOW_MS + nodes.DOWN_AFTER_MS))
    assert (down.status.state, down.status.since) == (DOWN, NOW_MS), "the loss is what replaceAfter counts from"
    (back,) = written(observe([down], ["n1"], now_ms=NOW_MS + 60_000))
    assert (back.status.state, back.status.since) == (READY, NOW_MS + 60_000)


def test_a_new_leader_waits_before_it_calls_a_node_lost() -> None:
    assert observe([build.node("n1")], [], grace_until=NOW_MS + 5) == plan.Plan(wake_at=NOW_MS + 5)


def gone(within_ms: int = 30_000, **more: int) -> pb.Node:
    """A node whose agent has just gone in order."""
    (node,) = written(observe([build.node("n1")], [], announced_ms={"n1": within_ms}, **more))
    return node


def test_a_node_whose_agent_goes_in_order_is_down_at_once_when_that_is_late() -> None:
    """Not before; and it is lost since its agent went, which is what `replaceAfter` counts from."""
    node, said = gone(), {"n1": 30_000}
    assert (node.status.state, node.status.since, node.status.expected_by) == (LOST, NOW_MS, NOW_MS + 30_000)
    for announced_ms in (said, {}):  # a new leader has only the record
        waits = observe([node], [], now_ms=NOW_MS + 29_999, announced_ms=announced_ms)
        assert waits == plan.Plan(wake_at=NOW_MS + 30_000)
        (down,) = written(observe([node], [], now_ms=NOW_MS + 30_000, announced_ms=announced_ms))
        assert (down.status.state, down.status.since, down.status.expected_by) == (DOWN, NOW_MS, 0)
        assert observe([down], [], now_ms=NOW_MS + 31_000, announced_ms=announced_ms) == plan.NOTHING


def test_an_agent_that_is_back_is_expected_no_more() -> None:
    """When its session is lost after that, nothing is waited for but the usual."""
    (back,) = written(observe([gone()], ["n1"], now_ms=NOW_MS + 8_000))
    assert (back.status.state, back.status.expected_by) == (READY, 0)
    (lost,) = written(observe([back], [], now_ms=NOW_MS + 9_000))
    assert observe([lost], [], now_ms=NOW_MS + 10_000) == plan.Plan(wake_at=NOW_MS + 9_000 + nodes.DOWN_AFTER_MS)


def test_what_an_agent_says_counts_with_a_new_leader_too() -> None:
    """It waits for those that it has not seen, and this one has just been there."""
    assert gone(grace_until=NOW_MS + 5_000).status.expected_by == NOW_MS + 30_000


def test_an_agent_is_believed_up_to_a_bound_and_never_less_than_one_that_says_nothing() -> None:
    assert gone(10**12).status.expected_by == NOW_MS + absence.LONGEST_MS
    assert observe([gone(1)], [], now_ms=NOW_MS + 100) == plan.Plan(wake_at=NOW_MS + nodes.DOWN_AFTER_MS)
    (silent,) = written(observe([build.node("n1")], [], announced_ms={"n1": -1}))
    assert not absence.is_expected(silent)


def test_what_a_leader_of_an_older_release_has_left_standing_is_not_believed() -> None:
    """It keeps the time of an earlier absence when it calls the node lost: the field is nothing to it."""
    stale = build.node("n1", state=LOST)
    stale.status.expected_by = NOW_MS - 60_000
    assert not absence.is_expected(stale)
    assert observe([stale], [], now_ms=NOW_MS + 10) == plan.Plan(wake_at=NOW_MS + nodes.DOWN_AFTER_MS)


@pytest.mark.parametrize(("wait_ms", "given_up_ms"), [(5_000, 30_000), (40_000, 40_000)])
def test_tasks_are_given_up_when_their_agent_is_late_and_their_service_has_waited(
    wait_ms: int, given_up_ms: int
) -> None:
    node, member = gone(), build.task(1)
    early = give_up(node, [member], NOW_MS + given_up_ms - 1, wait_ms)
    assert early == plan.Plan(wake_at=NOW_MS + given_up_ms)
    made = give_up(node, [member], NOW_MS + given_up_ms, wait_ms)
    assert [change.value.meta.id for change in made.changes] == [member.meta.id]


def test_a_fenced_task_is_dead_whether_its_agent_is_expected_back_or_not() -> None:
    """Its monitor has killed it: its slot would only be empty for longer."""
    fenced = build.task(1)
    fenced.fence = 10_000
    made = nodes.give_up(gone(), [fenced], {}, NOW_MS + 12_010, seen_lost_ms=12_010)
    assert [change.value.meta.id for change in made.changes] == [fenced.meta.id]


def test_what_somebody_says_of_a_node_counts_more_than_what_its_agent_said() -> None:
    """It was to be back in half a minute; who knows that it burns need not wait."""
    node, member = gone(), build.task(1)
    assert give_up(node, [member], NOW_MS + 1_000) == plan.Plan(wake_at=NOW_MS + 30_000)
    node.spec.lost_since = node.status.since
    made = give_up(node, [member], NOW_MS + 1_000)
    assert [change.value.meta.id for change in made.changes] == [member.meta.id]


def give_up(lost: pb.Node, members: list[pb.Task], now_ms: int, wait_ms: int = 3_000) -> plan.Plan:
    return nodes.give_up(lost, members, {("default", "web"): wait_ms}, now_ms)


def is_braked(lost: pb.Node, *others: pb.Node) -> bool:
    return nodes.braked(lost, nodes.Vanished.of([lost, *others]))


def test_tasks_of_a_lost_node_are_given_up_when_their_service_has_waited_long_enough() -> None:
    lost = build.node("n1", state=LOST)
    members = [build.task(1), build.task(2, states.COMPLETE)]
    early = give_up(lost, members, NOW_MS + 2_999)
    assert early == plan.Plan(wake_at=NOW_MS + 3_000)
    made = give_up(lost, members, NOW_MS + 3_000)
    assert [change.value.meta.id for change in made.changes] == [members[0].meta.id]
    orphan = made.changes[0].value
    assert isinstance(orphan, pb.Task)
    assert (orphan.status.state, orphan.status.ready) == (states.ORPHANED, False)


@pytest.mark.parametrize(
    ("ready", "lost_now", "lost_long_ago", "braked"),
    [(2, 1, 0, False), (1, 1, 0, False), (1, 2, 0, True), (0, 1, 0, True), (2, 3, 0, True), (2, 1, 9, False)],
)
def test_when_more_than_half_vanish_together_nothing_is_given_up(
    ready: int, lost_now: int, lost_long_ago: int, braked: bool
) -> None:
    lost = [build.node(f"n{i}", state=LOST) for i in range(lost_now)]
    old = [build.node(f"n{50 + i}", state=DOWN, since=NOW_MS - 86_400_000) for i in range(lost_long_ago)]
    others = [build.node(f"n{100 + i}") for i in range(ready)]
    assert is_braked(*lost, *old, *others) == braked


def test_a_node_that_a_person_says_is_lost_is_given_up_and_no_other() -> None:
    """Whatever its services wait for; a fenced task is waited for all the same."""
    away = [build.node(f"n{i}", state=DOWN) for i in (1, 2)]
    stays = build.node("n3")
    fenced = build.task(2, node="n1")
    fenced.fence = 10_000
    away[0].spec.lost_since = NOW_MS
    assert [is_braked(away[0], away[1], stays), is_braked(away[1], away[0], stays)] == [False, True]
    made = give_up(away[0], [build.task(1, node="n1"), fenced], NOW_MS, wait_ms=60_000)
    assert [change.value.slot for change in made.changes if isinstance(change.value, pb.Task)] == [1]
    assert made.wake_at == NOW_MS + 12_010


def test_that_a_node_was_lost_once_says_nothing_of_later() -> None:
    away = [build.node(f"n{i}", state=DOWN, since=NOW_MS + 60_000) for i in (1, 2)]
    away[0].spec.lost_since = NOW_MS
    assert is_braked(away[0], away[1], build.node("n3"))


@pytest.mark.parametrize(
    ("state", "others", "said_lost", "was_held", "held"),
    [
        (DOWN, [DOWN, READY], False, False, True),
        (DOWN, [DOWN, READY], False, True, True),
        (DOWN, [DOWN, READY], True, True, False),
        (DOWN, [READY, READY], False, True, False),
        (LOST, [DOWN, READY], False, False, False),
        (READY, [DOWN, DOWN], False, True, False),
        (READY, [READY, READY], False, False, False),
    ],
)
def test_a_node_says_whether_its_tasks_are_held(
    state: pb.NodeState.ValueType,
    others: list[pb.NodeState.ValueType],
    said_lost: bool,
    was_held: bool,
    held: bool,
) -> None:
    node = build.node("n1", state=state)
    node.status.held = was_held
    node.spec.lost_since = NOW_MS if said_lost else 0
    known = [node, *(build.node(f"n{2 + i}", state=one) for i, one in enumerate(others))]
    made = nodes.tell_brake(node, is_braked=is_braked(*known))
    assert [one.status.held for one in written(made)] == ([] if held == was_held else [held])


def test_only_a_node_that_is_lost_is_given_up() -> None:
    def asked(node: pb.Node) -> pb.Node:
        return edits.update_node(
            node,
            availability=pb.AVAILABILITY_UNSPECIFIED,
            set_labels={},
            remove_labels=(),
            lost=True,
            now_ms=NOW_MS + 9_000,
        )

    lost = asked(build.node("n1", state=DOWN))
    assert lost.spec.lost_since == NOW_MS
    assert asked(lost) is lost, "said again, nothing is written"
    with pytest.raises(errors.NotNow, match="n1 is not lost: its agent holds a session"):
        asked(build.node("n1"))


@pytest.mark.parametrize(
    ("seen_ms", "given_up"), [(0, False), (10_000, False), (12_009, False), (12_010, True)], ids=str
)
def test_a_fenced_task_is_given_up_when_it_must_be_dead(seen_ms: int, given_up: bool) -> None:
    """Ten seconds until it is killed, two for that, ten milliseconds for the clocks; whatever the wall clock says."""
    lost = build.node("n1", state=LOST)
    fenced = build.task(1)
    fenced.fence = 10_000
    for now_ms in (NOW_MS - 10**9, NOW_MS + 10**9):
        made = nodes.give_up(lost, [fenced], {}, now_ms, seen_lost_ms=seen_ms)
        assert [change.value.meta.id for change in made.changes] == ([fenced.meta.id] if given_up else [])
        assert made.wake_at == (None if given_up else now_ms + 12_010 - seen_ms)


def test_tasks_of_a_node_that_was_removed_end() -> None:
    made = nodes.give_up_removed([build.task(1), build.task(2, states.FAILED)], NOW_MS)
    assert [change.value.slot for change in made.changes if isinstance(change.value, pb.Task)] == [1]
    assert made.wake_at is None


@pytest.mark.parametrize(("seen_ms", "given_up"), [(0, False), (12_009, False), (12_010, True)], ids=str)
def test_a_fenced_task_outlives_the_record_of_its_node(seen_ms: int, given_up: bool) -> None:
    """Whoever removes a node that is cut off does not stop what runs there: a second one would run beside it."""
    fenced = build.task(1)
    fenced.fence = 10_000
    made = nodes.give_up_removed([fenced, build.task(2)], NOW_MS, seen_lost_ms=seen_ms)
    ended = [change.value.slot for change in made.changes if isinstance(change.value, pb.Task)]
    assert ended == ([1, 2] if given_up else [2])
    assert made.wake_at == (None if given_up else NOW_MS + 12_010 - seen_ms)


def test_a_node_that_was_there_before_ipv6_gets_a_subnet_of_it() -> None:
    """And keeps the one that it has."""
    known = build.node("n1")
    known.status.subnet = "10.112.7.0/24"
    old, new = written(observe([known], ["n1", "n2"], range6="fd00:112::/48"))
    assert (old.status.subnet, old.status.subnet6) == ("10.112.7.0/24", "fd00:112::/64")
    assert (new.status.subnet, new.status.subnet6) == ("10.112.8.0/24", "fd00:112:0:1::/64")


def test_a_range_of_ipv6_without_a_free_subnet_is_told_in_the_node() -> None:
    known = build.node("n1")
    known.status.subnet6 = "fd00:112::/64"
    other = build.node("n2")
    other.status.subnet6 = "fd00:112:0:1::/64"
    found = {
        node.meta.id: node for node in written(observe([known, other], ["n1", "n2", "n3"], range6="fd00:112::/63"))
    }
    assert found["n3"].status.message == "the cluster's IPv6 range has no subnet left for it"
    assert found["n3"].status.subnet
