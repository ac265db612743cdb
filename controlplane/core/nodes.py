"""What the leader makes of its nodes: who is there, who is lost, and when tasks of a lost node are given up.

Session ──lost──► DISCONNECTED ──`DOWN_AFTER_MS`──► DOWN          (a new session leads back to READY from anywhere)

A task of a lost node becomes ORPHANED `replaceAfter` after the session was lost, counted for its own service. The
brake: when more than half of the nodes vanish together, it is more likely that the leader has lost the network than
that they all died; then nothing is given up until they return, or a person says of a node that it does not
(`orchctl node lost`). That frees this one node, and says nothing of the others. A node that the brake holds says so.

An agent that ends in order and comes back (`systemctl restart`, an upgrade) says so before it goes, and within which
time. Until then its node is DISCONNECTED and *expected*: it does not become DOWN, and no task of it is given up. The
time stands in the node's record, so that a new leader keeps to it; one that is lost before it was stored costs what an
agent that says nothing costs. Then the node is lost since its agent went: who has waited `replaceAfter` by then is
replaced at once.

    Leaving ──► DISCONNECTED, expected ──`expected_by`──► DOWN, and given up          (READY as soon as it is back)

A fenced task waits for nothing but what its own node does (`agent.lease`): it is killed there `fence` after the node
last asked what a leader answered. The leader counts from when it first saw the node without a session, which is later,
on a clock that nobody sets. A new leader begins to count again: it cannot know what the one before it has answered
last. An agent that is expected back changes nothing: the task is killed all the same, and its slot would only be empty
for longer.

    agent    asks at t ─────────────────── killed at t + fence
    leader       answers ─ session lost, seen ──────────── fence ─── margin ─ given up
"""

import bisect
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.core import addresses, garbage, plan
from manifests import defaults
from protos import absence, losses, states
from protos.families import V4, V6, Family
from protos.orch.v1 import objects_pb2 as pb

DOWN_AFTER_MS = 5_000
FENCE_MARGIN_MS = 2_000
"""How long killing may take."""
DRIFT = 1_000
"""Two clocks differ by less than one part in so many."""
TOGETHER_MS = 30_000
"""Nodes that were lost within this time of each other vanished together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An agent's live session, as its registration described it."""

    session_id: str
    node_id: str
    node_name: str
    description: pb.NodeDescription
    labels: Mapping[str, str]


def observe(
    known: Mapping[str, pb.Node],
    sessions: Mapping[str, Session],
    node_ids: Collection[str],
    record: pb.Cluster | None,
    *,
    announced_ms: Mapping[str, int],
    cluster_range: str,
    subnet_bits: int,
    cluster_range6: str = "",
    subnet_bits6: int = 64,
    grace_until: int,
    now_ms: int,
) -> plan.Plan:
    """Brings the records of the nodes `node_ids` up to date with the sessions, both by node id.

    `record`: the cluster's, which says what was given last. Every node of the cluster is in `known`. A range that is
    empty is one of a family that the cluster does not have.
    `announced_ms`: of nodes whose agent has gone in order and has not come back since: within which time it will.
    `grace_until`: until then a new leader calls no node lost, since they are still on their way to it.
    """
    ranges = {V4: (cluster_range, subnet_bits), V6: (cluster_range6, subnet_bits6)}
    pools = {
        family: addresses.subnets(text, bits, {family.get(node.status, "subnet") for node in known.values()}, record)
        for family, (text, bits) in ranges.items()
        if text
    }
    changes: list[plan.Change] = []
    wakes: list[int] = []
    for node_id in sorted(node_ids):
        node, session = known.get(node_id), sessions.get(node_id)
        change, wake_at = None, None
        if session is not None:
            change = _present(node, session, pools, now_ms)
        elif node is not None:
            change, wake_at = _absent(node, announced_ms.get(node_id, 0), grace_until, now_ms)
        changes += [change] if change is not None else []
        wakes += [wake_at] if wake_at is not None else []
    given = addresses.remember(record, now_ms=now_ms, subnets=[pool.given for pool in pools.values()])
    return plan.Plan(changes=(*given, *changes), wake_at=plan.earliest(wakes))


def _present(
    node: pb.Node | None, session: Session, pools: Mapping[Family, addresses.Pool], now_ms: int
) -> plan.Change | None:
    fresh = node is None
    changed = plan.copy(node) if node is not None else _new(session, now_ms)
    for family, pool in pools.items():
        if not family.get(changed.status, "subnet"):
            family.set(changed.status, "subnet", pool.take())
    without = [family for family in pools if not family.get(changed.status, "subnet")]
    changed.status.description.CopyFrom(session.description)
    if changed.status.state != pb.NODE_STATE_READY:
        changed.status.state = pb.NODE_STATE_READY
        changed.status.since = now_ms
    changed.status.expected_by = 0
    changed.status.message = "; ".join(map(_none_left, without))
    if changed == node:
        return None
    return plan.Write(value=changed, why="joined the cluster" if fresh else "its agent holds a session")


def _none_left(family: Family) -> str:
    return f"the cluster's {'IPv6 ' if family is V6 else ''}range has no subnet left for it"


def _new(session: Session, now_ms: int) -> pb.Node:
    meta = pb.Meta(
        id=session.node_id,
        name=session.node_name,
        labels=dict(session.labels),
        generation=1,
        created_at=now_ms,
        updated_at=now_ms,
    )
    return pb.Node(meta=meta, spec=pb.NodeSpec(availability=pb.AVAILABILITY_ACTIVE))


def _absent(node: pb.Node, announced_ms: int, grace_until: int, now_ms: int) -> tuple[plan.Change | None, int | None]:
    status = node.status
    if status.state == pb.NODE_STATE_DOWN:
        return None, None
    if announced_ms > 0 and not absence.is_expected(node):
        text = "its agent has gone in order, and is expected back"
        back_by = now_ms + min(announced_ms, absence.LONGEST_MS)
        return _move(node, pb.NODE_STATE_DISCONNECTED, text, now_ms, expected_by=back_by), None
    if status.state == pb.NODE_STATE_DISCONNECTED:
        down_at = max(status.since + DOWN_AFTER_MS, status.expected_by)
        if now_ms < down_at:
            return None, down_at
        late = "its agent has gone in order, and is not back in the time that it said"
        text = late if absence.is_expected(node) else "its agent has been out of reach for too long"
        return _move(node, pb.NODE_STATE_DOWN, text, now_ms), None
    if now_ms < grace_until:
        return None, grace_until
    return _move(node, pb.NODE_STATE_DISCONNECTED, "its agent's session was lost", now_ms), None


def _move(
    node: pb.Node, state: pb.NodeState.ValueType, message: str, now_ms: int, *, expected_by: int = 0
) -> plan.Write:
    changed = plan.copy(node)
    changed.status.state = state
    changed.status.message = message
    changed.status.expected_by = expected_by
    if state == pb.NODE_STATE_DISCONNECTED:
        # `since` of DOWN stays the moment of the loss: `replaceAfter` counts from there.
        changed.status.since = now_ms
    return plan.Write(value=changed, why=message)


def replace_after_ms(service: pb.Service) -> int:
    """How long the service waits for a lost node."""
    policy: pb.NodeLossPolicy = defaults.resolve(service.spec.on_node_loss)
    return policy.replace_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanished:
    """What the brake has to know of all nodes, so that a thousand lost ones are not each compared with all others."""

    moments: Sequence[int]
    """When each of the lost ones was lost, in order."""
    here: int
    """How many are not lost."""

    @classmethod
    def of(cls, known: Iterable[pb.Node]) -> "Vanished":
        """`known`: all nodes of the cluster."""
        moments, here = [], 0
        for node in known:
            if losses.is_lost(node):
                moments.append(node.status.since)
            else:
                here += 1
        return cls(moments=sorted(moments), here=here)

    def together_with(self, moment: int) -> int:
        """How many were lost at about that moment."""
        first = bisect.bisect_left(self.moments, moment - TOGETHER_MS)
        return bisect.bisect_right(self.moments, moment + TOGETHER_MS) - first


def braked(node: pb.Node, vanished: Vanished) -> bool:
    """Whether the node is lost, and so many vanished together with it that none of them is given up, but those of
    which a person says that they do not come back.

    Example: of 5 nodes 3 are lost within ten seconds → 3 > 5 / 2, braked. A fourth that died yesterday counts neither
    among the lost nor among the 5.
    """
    if not losses.is_lost(node) or losses.is_final(node):
        return False
    return vanished.together_with(node.status.since) > vanished.here


def tell_brake(node: pb.Node, *, is_braked: bool) -> plan.Plan:
    """Has the node say whether the brake (`braked`) holds it. One that was lost a moment ago says nothing yet: no
    service has its tasks replaced before long, and most come back.
    """
    held = is_braked and node.status.state == pb.NODE_STATE_DOWN
    if held == node.status.held:
        return plan.NOTHING
    changed = plan.copy(node)
    changed.status.held = held
    why = "too many nodes vanished together" if held else "it is not held any more"
    return plan.Plan(changes=(plan.Write(value=changed, why=why),))


def fenced_for_ms(task: pb.Task) -> int:
    """How long a node has to be seen without a session until its fenced task has certainly ended.

    Example: fence 10 s → 10 s, 2 s for killing, 10 ms for clocks that go differently.
    """
    return task.fence + FENCE_MARGIN_MS + task.fence // DRIFT


def give_up(
    node: pb.Node,
    on_node: Collection[pb.Task],
    replace_after_ms: Mapping[tuple[str, str], int],
    now_ms: int,
    *,
    seen_lost_ms: int = 0,
) -> plan.Plan:
    """Ends the tasks of a lost node that is not `braked` whose service has waited long enough.

    Example: an agent goes in order at 0 s and says 30 s. Who waits for 5 s is replaced at 30 s, who waits for 40 s at
    40 s, and who is fenced for 10 s at 12 s.

    `replace_after_ms` by (namespace, service); a task whose service is gone waits for nothing. `seen_lost_ms`: for how
    long this leader has seen the node without a session, which is what counts for fenced tasks, also when a person says
    that the node is lost: they may be wrong.
    """
    expected_by = node.status.expected_by
    if losses.is_final(node):  # somebody knows better than the services, and than an agent that has announced itself
        replace_after_ms, expected_by = {}, 0
    due = {
        task.meta.id: now_ms + fenced_for_ms(task) - seen_lost_ms
        if task.fence
        else max(node.status.since + replace_after_ms.get((task.meta.namespace, task.service), 0), expected_by)
        for task in on_node
    }
    return _end(on_node, due, f"node {node.meta.name} was lost", now_ms)


def give_up_removed(on_node: Collection[pb.Task], now_ms: int, *, seen_lost_ms: int = 0) -> plan.Plan:
    """Ends the tasks of a node whose record is gone: nobody will ever report on them.

    A fenced task may run for as long as that of any lost node: somebody may have removed one that is only cut off.
    """
    due = {task.meta.id: now_ms + fenced_for_ms(task) - seen_lost_ms if task.fence else now_ms for task in on_node}
    return _end(on_node, due, "its node was removed", now_ms)


def _end(members: Collection[pb.Task], due: Mapping[str, int], why: str, now_ms: int) -> plan.Plan:
    """Those that have not ended, each at its time."""
    pending = [task for task in members if not states.is_terminal(task.status.state)]
    return plan.Plan(
        changes=tuple(garbage.end_as_orphan(task, why, now_ms) for task in pending if due[task.meta.id] <= now_ms),
        wake_at=plan.earliest(due[task.meta.id] for task in pending if due[task.meta.id] > now_ms),
    )
