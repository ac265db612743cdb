"""What the leader has assigned to this node, and how a message changes it.

Two rules: an INCREMENTAL message is taken only if it builds on the number that is held, everything else asks for a
COMPLETE one; and a task's desired state never falls, whatever comes late or twice.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignments:
    """Everything that the node must run. Its messages are never changed in place."""

    sequence: int | None = None  # None: no COMPLETE was received in this session
    tasks: Mapping[str, pb.Task] = field(default_factory=lambda: MappingProxyType({}))
    revisions: Mapping[str, pb.Revision] = field(default_factory=lambda: MappingProxyType({}))
    network: dpb.NodeNetwork | None = None
    services: Mapping[str, dpb.NetworkService] = field(default_factory=lambda: MappingProxyType({}))
    touched: frozenset[str] = frozenset()  # ids of services that came, went or changed with the last message
    withdrawn: frozenset[str] = frozenset()  # tasks that are to stop and get no new connections any more
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # the node's


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The message cannot be applied; a COMPLETE one is needed."""

    why: str


def apply(current: Assignments, message: dpb.Assignment) -> Assignments | Gap:
    """What is assigned after the message."""
    if current.sequence is not None and message.results_in <= current.sequence:
        return current  # the same message again, or one that was overtaken
    if message.type == dpb.Assignment.TYPE_COMPLETE:
        base: Assignments = dataclasses.replace(current, revisions={}, withdrawn=frozenset())
        tasks: dict[str, pb.Task] = {}
    elif message.type != dpb.Assignment.TYPE_INCREMENTAL:
        return Gap(why=f"an assignment of a type that this agent does not know: {message.type}")
    elif message.applies_to != current.sequence:
        return Gap(why=f"the assignment builds on {message.applies_to}, this agent is at {current.sequence}")
    else:
        base, tasks = current, dict(current.tasks)
    for task in message.tasks:
        tasks[task.meta.id] = _risen(current.tasks.get(task.meta.id), task)
    revisions = {**base.revisions, **{revision.meta.id: revision for revision in message.revisions}}
    for task_id in message.removed_tasks:
        tasks.pop(task_id, None)
    for revision_id in message.removed_revisions:
        revisions.pop(revision_id, None)
    missing = next((task for task in tasks.values() if task.revision_id not in revisions), None)
    if missing is not None:
        return Gap(why=f"revision {missing.revision_id} of task {missing.meta.name} is missing")
    services, touched = _services(current.services, message)
    return Assignments(
        sequence=message.results_in,
        tasks=tasks,
        revisions=revisions,
        network=message.network if message.HasField("network") else current.network,
        services=services,
        touched=touched,
        withdrawn=(base.withdrawn | {*message.withdrawn_tasks}) & tasks.keys(),
        labels=dict(message.node.labels) if message.HasField("node") else current.labels,
    )


def of_new_session(current: Assignments) -> Assignments:
    """The same, but numbers start anew: a session begins with a COMPLETE message."""
    return dataclasses.replace(current, sequence=None)


def to_saved(current: Assignments) -> dpb.SavedAssignment:
    """What is kept on disk."""
    return dpb.SavedAssignment(
        tasks=current.tasks.values(),
        revisions=current.revisions.values(),
        network=current.network,
        services=current.services.values(),
        withdrawn_tasks=sorted(current.withdrawn),
        node=dpb.NodeFacts(labels=current.labels),
    )


def from_saved(saved: dpb.SavedAssignment) -> Assignments:
    """What an agent starts with."""
    return Assignments(
        tasks={task.meta.id: task for task in saved.tasks},
        revisions={revision.meta.id: revision for revision in saved.revisions},
        network=saved.network if saved.HasField("network") else None,
        services={service.id: service for service in saved.services},
        touched=frozenset(service.id for service in saved.services),
        withdrawn=frozenset(saved.withdrawn_tasks),
        labels=dict(saved.node.labels),
    )


def changed_tasks(before: Assignments, after: Assignments) -> Iterator[pb.Task]:
    """The tasks of which something else is wanted than before, or may be. What has not changed is the same object."""
    withdrawn = before.withdrawn ^ after.withdrawn
    for task_id, task in after.tasks.items():
        revision = after.revisions[task.revision_id]
        if (
            before.tasks.get(task_id) is not task
            or before.revisions.get(task.revision_id) is not revision
            or task_id in withdrawn
        ):
            yield task


def different(
    before: Mapping[str, dpb.NetworkService], after: Mapping[str, dpb.NetworkService], touched: Iterable[str] | None
) -> tuple[list[dpb.NetworkService], list[dpb.NetworkService]]:
    """The services as they were that are others now or gone, and as they are that are others or new; in one order.

    `touched`: those that may be others; None: any. What has not changed is the same object.
    """
    looked_at = before.keys() | after.keys() if touched is None else touched
    keys = sorted(key for key in looked_at if before.get(key) is not after.get(key))
    return [before[key] for key in keys if key in before], [after[key] for key in keys if key in after]


def _services(
    before: Mapping[str, dpb.NetworkService], message: dpb.Assignment
) -> tuple[Mapping[str, dpb.NetworkService], frozenset[str]]:
    """The services, and which of them are others than before. Those that are not stay the same objects."""
    told = {service.id: service for service in message.services if before.get(service.id) != service}
    if message.type == dpb.Assignment.TYPE_COMPLETE:
        gone = before.keys() - {service.id for service in message.services}
    else:
        gone = before.keys() & set(message.removed_services)
    if not told and not gone:
        return before, frozenset()
    after = {**before, **told}
    for service_id in gone:
        del after[service_id]
    return after, frozenset(told.keys() | gone)


def _risen(before: pb.Task | None, task: pb.Task) -> pb.Task:
    if before is None or before.desired_state <= task.desired_state:
        return task
    copy = pb.Task()
    copy.CopyFrom(task)
    copy.desired_state = before.desired_state
    return copy
