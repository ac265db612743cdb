"""Which containers a task has, by the names that people call them.

The rule: what a name means is said by the revision that the task runs, so that a service that is being replaced has
the containers of both.
"""

from collections.abc import Collection, Iterable

from controlplane.core import request_errors as errors
from controlplane.store import snapshots
from manifests import suggest
from protos import containers
from protos.orch.v1 import objects_pb2 as pb


def of(state: snapshots.Snapshot, task: pb.Task) -> tuple[str, ...]:
    """In the order of their starts; the main one alone when the task's revision is not known any more."""
    revisions = state.revisions_of(task.meta.namespace, task.service).values()
    found = next((one for one in revisions if one.meta.id == task.revision_id), None)
    return containers.names(found.template) if found is not None else (containers.MAIN,)


def check(state: snapshots.Snapshot, tasks: Collection[pb.Task], name: str) -> None:
    """Raises Unknown when none of the tasks has a container of that name. The empty name is the main one's."""
    known = {one: None for task in tasks for one in of(state, task)}
    if name and tasks and name not in known:
        hint = suggest.did_you_mean(name, known) or f"there are {_listed(known)}"
        raise errors.Unknown(f"{_owner(tasks)} has no container {name!r:.60}", hint=hint)


def _owner(tasks: Collection[pb.Task]) -> str:
    first = next(iter(tasks))
    return first.meta.name if len(tasks) == 1 else f"Service {first.meta.namespace}/{first.service}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
