"""What a node must run, and what changed since it was told last.

An agent needs to know of a task: that it is there, what it should come to, and whether the leader counts it as ended.
The rest of its status is the agent's own affair, so a change there is not sent back to it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from controlplane.core.endpoint_table import Difference
from protos import families, states
from protos.families import Family
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

_Subnets = TypeVar("_Subnets", wire.NetworkPeer, wire.NodeNetwork)

Peers = tuple[wire.NetworkPeer, ...]

Seen = tuple[int, bool, str]
"""What an agent was told of a task: its desired state, whether the leader counts it as ended, and what it waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a node has to run, and what it needs for that. `revisions` by id; those of other tasks do no harm."""

    tasks: Collection[pb.Task] = ()
    revisions: Mapping[str, pb.Revision] = field(default_factory=dict)
    network: wire.NodeNetwork = field(default_factory=wire.NodeNetwork)
    labels: Mapping[str, str] = field(default_factory=dict)
    """The node's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an agent has been told up to `sequence`."""

    sequence: int = 0
    work: Work = field(default_factory=Work)
    tasks: Mapping[str, Seen] = field(default_factory=dict)
    revisions: frozenset[str] = frozenset()
    services: int = 0
    """The number of the list of services."""
    withdrawn: frozenset[str] = frozenset()
    """Tasks that are to stop and have left the network."""


def _seen(task: pb.Task) -> Seen:
    return task.desired_state, states.is_terminal(task.status.state), task.waits_for


def complete(
    work: Work, services: Difference, withdrawn: frozenset[str], sequence: int
) -> tuple[wire.Assignment, Told]:
    """Everything, and what the agent knows once it has it. A task whose revision is missing comes later."""
    message, told = _difference(Told(sequence=sequence), work, services, withdrawn)
    message.type = wire.Assignment.TYPE_COMPLETE
    message.applies_to = 0
    message.network.CopyFrom(work.network)
    message.node.CopyFrom(wire.NodeFacts(labels=work.labels))
    return message, told


def incremental(
    told: Told, work: Work, services: Difference, withdrawn: frozenset[str]
) -> tuple[wire.Assignment | None, Told]:
    """What changed since `told`; None when nothing did. `services`: since the list that was told."""
    message, after = _difference(told, work, services, withdrawn)
    of_work = message.tasks or message.removed_tasks or message.HasField("network") or message.HasField("node")
    if not (of_work or message.services or message.removed_services or message.withdrawn_tasks):
        return None, told
    message.type = wire.Assignment.TYPE_INCREMENTAL
    return message, after


def _difference(
    told: Told, work: Work, services: Difference, withdrawn: frozenset[str]
) -> tuple[wire.Assignment, Told]:
    message, after = (wire.Assignment(), told) if work is told.work else _of_work(told, work)
    message.applies_to = told.sequence
    message.results_in = told.sequence + 1
    message.services.extend(services.changed)
    message.removed_services.extend(services.removed)
    message.withdrawn_tasks.extend(sorted(withdrawn - told.withdrawn))
    return message, Told(
        sequence=message.results_in,
        work=work,
        tasks=after.tasks,
        revisions=after.revisions,
        services=services.number,
        withdrawn=withdrawn,
    )


def _of_work(told: Told, work: Work) -> tuple[wire.Assignment, Told]:
    sendable = [task for task in work.tasks if task.revision_id in work.revisions]
    now = {task.meta.id: _seen(task) for task in sendable}
    needed = frozenset(task.revision_id for task in sendable)
    message = wire.Assignment(
        tasks=[task for task in sendable if told.tasks.get(task.meta.id) != now[task.meta.id]],
        removed_tasks=sorted(told.tasks.keys() - now.keys()),
        revisions=[work.revisions[name] for name in sorted(needed - told.revisions)],
        removed_revisions=sorted(told.revisions - needed),
    )
    if work.network != told.work.network:
        message.network.CopyFrom(work.network)
    if work.labels != told.work.labels:
        message.node.CopyFrom(wire.NodeFacts(labels=work.labels))
    return message, Told(tasks=now, revisions=needed)


def peers_of(known: Collection[pb.Node], settings: wire.NodeNetwork, trusted: Mapping[str, int]) -> Peers:
    """The nodes whose tasks others can reach, by id. `settings`: what is the same for all nodes; `trusted`: since when
    each node is a member, for those that are.
    """
    had = families.told(settings, "cluster_range")
    return tuple(
        _with_subnets(_peer(one, trusted.get(one.meta.id, 0)), one.status, had)
        for one in sorted(known, key=lambda one: one.meta.id)
        if one.status.description.address and any(family.get(one.status, "subnet") for family in had)
    )


def _peer(node: pb.Node, trusted_since: int) -> wire.NetworkPeer:
    address = node.status.description.address
    return wire.NetworkPeer(node_id=node.meta.id, address=address, trusted_since=trusted_since)


def seen_by_others(node: pb.Node | None) -> Sequence[str]:
    """All that other nodes are told of a node; None: there is none."""
    return (node.status.description.address, *families.every(node.status, "subnet")) if node is not None else ()


def network_of(node: pb.Node, peers: Peers, settings: wire.NodeNetwork) -> wire.NodeNetwork:
    """What a node needs to know to reach the tasks of the others."""
    others = [peer for peer in peers if peer.node_id != node.meta.id]
    network = wire.NodeNetwork(node_id=node.meta.id, peers=others)
    network = _with_subnets(network, node.status, families.told(settings, "cluster_range"))
    network.MergeFrom(settings)
    return network


def _with_subnets(message: _Subnets, status: pb.NodeStatus, had: Collection[Family]) -> _Subnets:
    """A node keeps a subnet of a family that the cluster has no longer, and nobody is told of it."""
    for family in had:
        family.set(message, "subnet", family.get(status, "subnet"))
    return message
