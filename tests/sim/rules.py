"""What must hold after every commit, and what must hold at rest.

The first kind is checked inside the store, on the bytes that are written; the second on the store and the machines,
after the faults have ended and time has passed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from controlplane.core import fleet
from controlplane.store import api, typed
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.story import Story

LEADERS_KINDS = frozenset({"task", "revision"})


class Violation(AssertionError):  # noqa: N818 - named after what happened
    """A rule was broken. The text says which, where and when."""


class Rules:
    """Follows every commit."""

    def __init__(self, story: Story) -> None:
        self.objects: dict[str, kinds.StoredObject] = {}
        self.commits = 0
        self._story = story

    def check(self, revision: int, events: Sequence[api.Event], fence: api.Fence | None) -> None:
        """Called by the store with each commit. Raises Violation."""
        touched: set[type] = set()
        for event in events:
            kind = kinds.kind_of_key(event.key)
            if kind is None:
                continue
            self.commits += 1
            before = self.objects.get(event.key)
            after = typed.decode(event.key, event.value, revision) if event.value is not None else None
            self._story.tell(kind, event.key, before, after)
            if kind.name in LEADERS_KINDS and fence is None:
                raise Violation(f"{event.key} was written without the leader's fence")
            if isinstance(before, pb.Task) and isinstance(after, pb.Task):
                _check_rise(before, after)
            self._replace(event.key, after)
            touched.add(kind.message)
        if pb.Task in touched:
            self._check_tasks()
        if pb.Node in touched:
            _check_unique("subnet", {node.meta.id: node.status.subnet for node in self.nodes()})

    def nodes(self) -> list[pb.Node]:
        return [one for one in self.objects.values() if isinstance(one, pb.Node)]

    def tasks(self) -> list[pb.Task]:
        return [one for one in self.objects.values() if isinstance(one, pb.Task)]

    def services(self) -> list[pb.Service]:
        return [one for one in self.objects.values() if isinstance(one, pb.Service)]

    def _replace(self, key: str, after: kinds.StoredObject | None) -> None:
        if after is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = after

    def _check_tasks(self) -> None:
        alive = [task for task in self.tasks() if not states.is_terminal(task.status.state)]
        slots = Counter((task.meta.namespace, task.service, task.slot) for task in alive)
        for slot, count in slots.items():
            if count > 1:
                names = sorted(task.meta.id for task in alive if (task.meta.namespace, task.service, task.slot) == slot)
                raise Violation(f"slot {slot} has {count} tasks that have not ended: {', '.join(names)}")
        _check_unique("address", {task.meta.id: task.status.address for task in alive})
        templates = {one.meta.id: one.template for one in self.objects.values() if isinstance(one, pb.Revision)}
        _check_capacity(self.nodes(), alive, templates)


def _check_rise(before: pb.Task, after: pb.Task) -> None:
    name = after.meta.id
    edge = (before.status.state, after.status.state)
    if edge[0] != edge[1] and edge not in states.TRANSITIONS:
        raise Violation(f"task {name} went from {states.word(edge[0])} to {states.word(edge[1])}")
    if after.desired_state < before.desired_state:
        raise Violation(f"task {name}: its desired state fell from {before.desired_state} to {after.desired_state}")
    if before.node_id and after.node_id != before.node_id:
        raise Violation(f"task {name} moved from {before.node_id} to {after.node_id}")
    if (before.slot, before.service, before.revision_id) != (after.slot, after.service, after.revision_id):
        raise Violation(f"task {name} became another task")


def _check_unique(what: str, values: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for owner, value in sorted(values.items()):
        if value and value in owners:
            raise Violation(f"{what} {value} was given to {owners[value]} and to {owner}")
        owners[value] = owner


def _check_capacity(
    nodes: Sequence[pb.Node], alive: Sequence[pb.Task], templates: Mapping[str, pb.TaskTemplate]
) -> None:
    for node in nodes:
        here = [templates[task.revision_id] for task in alive if task.node_id == node.meta.id]
        reserved = [one.container.resources.reservations for one in here]
        capacity = node.status.description.capacity
        if sum(one.cpu for one in reserved) > capacity.cpu or sum(one.memory for one in reserved) > capacity.memory:
            raise Violation(f"node {node.meta.name} was given more than it has")
        if len(here) > capacity.tasks:
            raise Violation(f"node {node.meta.name} was given {len(here)} tasks and takes {capacity.tasks}")
        ports = Counter(port for one in here for port in fleet.host_ports(one))
        if ports and max(ports.values()) > 1:
            raise Violation(f"node {node.meta.name}: a published port was given twice: {ports}")


def unrest(rules: Rules, running: Mapping[str, frozenset[str]]) -> list[str]:
    """What is not as it should be at rest. `running`: the containers that run, by node id."""
    return [*_unsettled(rules), *_strays(rules, running), *_left_over(rules)]


def _unsettled(rules: Rules) -> Iterator[str]:
    for service in rules.services():
        if service.meta.deleted_at:
            yield f"{kinds.label(service)} is still being deleted"
        elif not service.status.settled or service.status.observed_generation != service.meta.generation:
            yield f"{kinds.label(service)} is not settled: {service.status.message}"


def _strays(rules: Rules, running: Mapping[str, frozenset[str]]) -> Iterator[str]:
    alive = {task.meta.id: task for task in rules.tasks() if not states.is_terminal(task.status.state)}
    for task in alive.values():
        if task.node_id and task.meta.id not in running.get(task.node_id, frozenset()):
            yield f"task {task.meta.id} counts as {states.word(task.status.state)}; its container is gone"
    for node_id, containers in running.items():
        for container in sorted(containers):
            if container not in alive or alive[container].node_id != node_id:
                yield f"container {container} runs on {node_id} and no task wants it"


def _left_over(rules: Rules) -> Iterator[str]:
    services = {(one.meta.namespace, one.meta.name) for one in rules.services()}
    for task in rules.tasks():
        if (task.meta.namespace, task.service) not in services:
            yield f"task {task.meta.id} is left of a service that is gone"
