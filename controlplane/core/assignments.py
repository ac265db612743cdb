"""What a node must run, and what changed since it was told last.

An agent needs to know of a task: that it is there, what it should come to, and whether the leader counts it as ended.
The rest of its status is the agent's own affair, so a change there is not sent back to it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from protos import states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

Seen = tuple[int, bool]
"""What an agent was told of a task: its desired state, and whether the leader counts it as ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an agent has been told up to `sequence`."""

    sequence: int = 0
    tasks: Mapping[str, Seen] = field(default_factory=dict)
    revisions: frozenset[str] = frozenset()
    network: wire.NodeNetwork = field(default_factory=wire.NodeNetwork)


def _seen(task: pb.Task) -> Seen:
    return task.desired_state, states.is_terminal(task.status.state)


def complete(
    tasks: Collection[pb.Task], revisions: Mapping[str, pb.Revision], network: wire.NodeNetwork, sequence: int
) -> tuple[wire.Assignment, Told]:
    """Everything, and what the agent knows once it has it. A task whose revision is missing comes later."""
    told = Told(sequence=sequence)
    message, told = _difference(told, tasks, revisions, network)
    message.type = wire.Assignment.TYPE_COMPLETE
    message.applies_to = 0
    message.network.CopyFrom(network)
    return message, told


def incremental(
    told: Told, tasks: Collection[pb.Task], revisions: Mapping[str, pb.Revision], network: wire.NodeNetwork
) -> tuple[wire.Assignment | None, Told]:
    """What changed since `told`; None when nothing did."""
    message, after = _difference(told, tasks, revisions, network)
    if not (message.tasks or message.removed_tasks or message.HasField("network")):
        return None, told
    message.type = wire.Assignment.TYPE_INCREMENTAL
    return message, after


def _difference(
    told: Told, tasks: Collection[pb.Task], revisions: Mapping[str, pb.Revision], network: wire.NodeNetwork
) -> tuple[wire.Assignment, Told]:
    sendable = [task for task in tasks if task.revision_id in revisions]
    now = {task.meta.id: _seen(task) for task in sendable}
    needed = frozenset(task.revision_id for task in sendable)
    message = wire.Assignment(
        applies_to=told.sequence,
        results_in=told.sequence + 1,
        tasks=[task for task in sendable if told.tasks.get(task.meta.id) != now[task.meta.id]],
        removed_tasks=sorted(told.tasks.keys() - now.keys()),
        revisions=[revisions[name] for name in sorted(needed - told.revisions)],
        removed_revisions=sorted(told.revisions - needed),
    )
    if network != told.network:
        message.network.CopyFrom(network)
    return message, Told(sequence=told.sequence + 1, tasks=now, revisions=needed, network=network)


def network_of(node: pb.Node, known: Collection[pb.Node], cluster_range: str) -> wire.NodeNetwork:
    """What a node needs to know to reach the tasks of the others."""
    peers = [
        wire.NetworkPeer(node_id=other.meta.id, address=other.status.description.address, subnet=other.status.subnet)
        for other in sorted(known, key=lambda other: other.meta.id)
        if other.meta.id != node.meta.id and other.status.subnet and other.status.description.address
    ]
    return wire.NodeNetwork(cluster_range=cluster_range, subnet=node.status.subnet, peers=peers)
