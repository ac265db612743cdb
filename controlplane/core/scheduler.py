"""Chooses a node for every task that has none.

Tasks of one revision are equal, so the work is done once for the group: filter all nodes, put those that pass into a
heap by score, and take from it as many times as there are tasks. After each take only that node's score changes.

The score spreads: fewest recent failures of the service, then fewest of its own tasks, then fewest tasks of all, then
by name. Example: web has tasks on n1 and n2, n3 is empty but for a database → n3.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from controlplane.core import filters, fleet, plan, tasks
from protos import states
from protos.orch.v1 import objects_pb2 as pb

Score = tuple[int, int, int, int]


def schedule(
    nodes: Iterable[pb.Node],
    placed: Collection[pb.Task],
    waiting: Collection[pb.Task],
    templates: Mapping[str, pb.TaskTemplate],
    now_ms: int,
    everywhere: Mapping[fleet.HostPort, str] = MappingProxyType({}),
) -> plan.Plan:
    """Nodes for the tasks of `waiting`, or the reasons why not. `placed`: every task that has a node; `everywhere`: the
    ports that services publish on every node, and which service.
    """
    if not waiting:
        return plan.NOTHING
    ships = fleet.survey(nodes, placed, templates, everywhere)
    history = _History(placed)
    changes: list[plan.Change] = []
    for group in _groups(waiting):
        template = templates.get(group[0].revision_id)
        if template is not None:  # else its revision has not arrived yet; its arrival wakes the scheduler
            changes += _place(ships, group, template, history, now_ms)
    return plan.Plan(changes=tuple(changes))


class _History:
    """How many tasks of a service each node has, and how many of a revision failed on it lately."""

    def __init__(self, placed: Collection[pb.Task]) -> None:
        self.present: Counter[tuple[str, str, str]] = Counter()
        """By namespace, service and node id."""
        self.failures: Counter[tuple[str, str]] = Counter()
        """By revision id and node id."""
        for task in placed:
            if not states.is_terminal(task.status.state):
                self.present[task.meta.namespace, task.service, task.node_id] += 1
            elif tasks.failed(task):
                self.failures[task.revision_id, task.node_id] += 1


def _groups(waiting: Collection[pb.Task]) -> Iterator[list[pb.Task]]:
    """Equal tasks: of one revision, and for one node where they have a target; oldest first, in a group by slot."""
    groups: dict[tuple[str, str], list[pb.Task]] = {}
    for task in sorted(waiting, key=lambda task: (task.meta.created_at, task.service, task.slot, task.meta.id)):
        groups.setdefault((task.revision_id, task.target_node_id), []).append(task)
    return iter(groups.values())


def _place(
    ships: fleet.Fleet, group: Sequence[pb.Task], template: pb.TaskTemplate, history: _History, now_ms: int
) -> Iterator[plan.Change]:
    heap = _heap(ships, template, group[0], history)
    refusals: list[pb.Refusal] | None = None
    for task in group:
        row = _best(ships, template, heap)
        if row is not None:
            ships.take(row, template, fleet.holder(task))
            yield _assign(task, ships.nodes[row], now_ms)
            continue
        if refusals is None:
            refusals = filters.explain(ships, template, task.target_node_id)
        waits = _wait(task, refusals, now_ms)
        if waits is not None:
            yield waits


def _heap(ships: fleet.Fleet, template: pb.TaskTemplate, task: pb.Task, history: _History) -> list[Score]:
    heap: list[Score] = []
    for row in np.flatnonzero(filters.passing(ships, template, task.target_node_id)).tolist():
        node_id = ships.nodes[row].meta.id
        failures = history.failures[task.revision_id, node_id]
        present = history.present[task.meta.namespace, task.service, node_id]
        heap.append((failures, present, int(ships.load[row]), row))
    heapq.heapify(heap)
    return heap


def _best(ships: fleet.Fleet, template: pb.TaskTemplate, heap: list[Score]) -> int | None:
    """Takes the best node that still has room, and puts it back with the score that it has then."""
    while heap:
        failures, present, load, row = heap[0]
        if filters.takes(ships, template, row):
            heapq.heapreplace(heap, (failures, present + 1, load + 1, row))
            return row
        heapq.heappop(heap)
    return None


def _assign(task: pb.Task, node: pb.Node, now_ms: int) -> plan.Write:
    states.check(task.status.state, states.ASSIGNED, states.Owner.SCHEDULER)
    changed = plan.copy(task)
    changed.node_id = node.meta.id
    changed.status.CopyFrom(pb.TaskStatus(state=states.ASSIGNED, at=now_ms))
    return plan.Write(value=changed, why=f"assigned to node {node.meta.name}")


def _wait(task: pb.Task, refusals: Sequence[pb.Refusal], now_ms: int) -> plan.Write | None:
    """The task with the reasons why it waits; None when it says so already."""
    message = filters.sentence(refusals)
    if task.status.state == states.PENDING and task.status.message == message:
        return None
    states.check(task.status.state, states.PENDING, states.Owner.SCHEDULER)
    changed = plan.copy(task)
    at = task.status.at if task.status.state == states.PENDING else now_ms
    changed.status.CopyFrom(
        pb.TaskStatus(state=states.PENDING, at=at, message=message, reason="Unschedulable", refusals=refusals)
    )
    return plan.Write(value=changed, why=message)
