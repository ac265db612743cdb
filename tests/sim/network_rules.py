"""What must hold of the network: who is given which address, and what nodes are told of tasks that are to stop.

Addresses are looked at as they are written; what is told is looked at on the links, as it is sent and as it arrives.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from protos import kinds
from protos.families import FAMILIES, Family
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.net import End
from tests.sim.violation import Violation

BOUND_S = 3.0
"""For so long, and no longer, a task that is to stop waits for nodes that do not answer, and for one that was lost."""
A_MOMENT_S = 0.005


@dataclass(slots=True)
class _Lists:
    """What a leader told one node in one session: the tasks that get connections, by the assignment's number."""

    end: End
    services: dict[str, frozenset[str]] = field(default_factory=dict)
    told: dict[int, frozenset[str]] = field(default_factory=dict)
    applied: frozenset[str] = frozenset()

    def tell(self, assignment: wire.Assignment) -> None:
        if assignment.type == wire.Assignment.TYPE_COMPLETE:
            self.services = {}
        for service in assignment.services:
            self.services[service.id] = frozenset(one.task_id for one in service.endpoints if one.ready)
        for gone in assignment.removed_services:
            self.services.pop(gone, None)
        self.told[assignment.results_in] = frozenset().union(*self.services.values())

    def apply(self, sequence: int) -> None:
        known = [number for number in self.told if number <= sequence]
        if known:
            self.applied = self.told[max(known)]
            self.told = {number: tasks for number, tasks in self.told.items() if number >= max(known)}


class NetworkRules:
    """Told of every commit, and of every message of a session."""

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        """Of virtual addresses, for ever: a range of 65,534 lasts longer than any run."""
        self._nodes: dict[str, pb.Node] = {}
        self._away_since: dict[str, float] = {}
        self._given_up_until: dict[str, float] = {}
        """When a node came back that had been away for so long that nobody waited for it any more. What was let go
        meanwhile is told to it only then.
        """
        self._told_to_stop: dict[str, float] = {}
        self._lists: dict[tuple[str, str], _Lists] = {}
        """By the names of the leader and of the node."""

    def note(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """Something was written. Raises Violation."""
        match after or before:
            case pb.Service() as service if after is not None:
                for family in FAMILIES:
                    self._check_address(before, service, family)
            case pb.Node() as node:
                self._note_node(node if after is not None else pb.Node(meta=node.meta))
            case pb.Task() as task if task.desired_state >= pb.DESIRED_STATE_SHUTDOWN:
                self._told_to_stop.setdefault(task.meta.id, _now_s())

    def _note_node(self, node: pb.Node) -> None:
        name = node.meta.name
        before = self._nodes.get(name, pb.Node()).status.state
        if before == pb.NODE_STATE_DOWN or self._is_given_up(name):
            self._given_up_until[name] = _now_s()
        self._nodes[name] = node
        if node.status.state == pb.NODE_STATE_DISCONNECTED:
            self._away_since.setdefault(name, _now_s())
        else:
            self._away_since.pop(name, None)

    def _is_given_up(self, name: str) -> bool:
        return _now_s() - self._away_since.get(name, _now_s()) >= BOUND_S - A_MOMENT_S

    def _check_address(self, before: kinds.StoredObject | None, service: pb.Service, family: Family) -> None:
        had = family.get(before.status, "address") if isinstance(before, pb.Service) else ""
        address = family.get(service.status, "address")
        if had and had != address and before is not None and before.meta.id == service.meta.id:
            raise Violation("an address stays", f"service {service.meta.name} had {had} and has {address or 'none'}")
        owner = self._owners.setdefault(address, service.meta.id) if address else service.meta.id
        if owner != service.meta.id:
            raise Violation("an address rests", f"{address} of service {owner} was given to {service.meta.id}")

    def sent(self, end: End, message: object) -> None:
        """A process sends something. Raises Violation."""
        if isinstance(message, wire.LeaderMessage) and message.HasField("assignment"):
            lists = self._lists.get((end.owner, end.peer))
            if lists is None or lists.end is not end:
                sent = lists.applied if lists is not None else frozenset()  # its kernel goes on with that
                lists = self._lists[end.owner, end.peer] = _Lists(end, applied=sent)
            lists.tell(message.assignment)
            for task_id in message.assignment.withdrawn_tasks:
                self._check_withdrawn(end.owner, task_id)

    def arrived(self, end: End, message: object) -> None:
        """A process finds something on its end of a link."""
        if isinstance(message, wire.AgentMessage) and message.HasField("network_applied"):
            lists = self._lists.get((end.owner, end.peer))
            if lists is not None and lists.end is end:
                lists.apply(message.network_applied.sequence)

    def _check_withdrawn(self, leader: str, task_id: str) -> None:
        told_s = self._told_to_stop.get(task_id, 0.0)
        if _now_s() - told_s >= BOUND_S - A_MOMENT_S:
            return
        for node, lists in self._of_leader(leader, told_s):
            if task_id in lists.applied:
                text = f"{leader} let task {task_id} go while {node} sends it connections, for all that {leader} knows"
                raise Violation("let go last", text)

    def _of_leader(self, leader: str, told_s: float) -> Iterator[tuple[str, _Lists]]:
        """Of the nodes that are waited for, and that nobody has given up since the task was told to stop."""
        for (owner, node), lists in self._lists.items():
            state = self._nodes.get(node, pb.Node()).status.state
            waited_for = state in {pb.NODE_STATE_READY, pb.NODE_STATE_DISCONNECTED} and not self._is_given_up(node)
            if owner == leader and waited_for and self._given_up_until.get(node, -1.0) < told_s:
                yield node, lists


def _now_s() -> float:
    return asyncio.get_running_loop().time()
