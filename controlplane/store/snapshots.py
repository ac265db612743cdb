"""The state of the cluster at one revision, with the indexes that the controllers ask for.

A `Snapshot` never changes; the `Editor` makes the next one. Two snapshots share everything that did not change between
them, and unchanged objects are identical (`is`). Objects in a snapshot are read, never written: copy, change, commit.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from controlplane.store import persistent
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

ObjectT = TypeVar(
    "ObjectT",
    pb.Service,
    pb.Revision,
    pb.Task,
    pb.Node,
    pb.Image,
    pb.Network,
    pb.Event,
    pb.Endpoints,
    pb.Cluster,
)
FoundT = TypeVar("FoundT")
Objects = persistent.Map[kinds.StoredObject]

_NONE: Objects = persistent.Map()
_KINDS: Mapping[type[kinds.StoredObject], kinds.Kind] = {kind.message: kind for kind in kinds.KINDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one object: `before` None = it is new, `after` None = it is gone."""

    kind: kinds.Kind
    key: str
    before: kinds.StoredObject | None
    after: kinds.StoredObject | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """Objects of one kind, grouped."""

    message: type[kinds.StoredObject]
    group_of: Callable[[kinds.StoredObject], str]


def _service_of(value: kinds.StoredObject) -> str:
    assert isinstance(value, pb.Task | pb.Revision)
    return kinds.service_of(value)


def _node_of(value: kinds.StoredObject) -> str:
    assert isinstance(value, pb.Task)
    return value.node_id


_TASKS_BY_SERVICE = _Index(message=pb.Task, group_of=_service_of)
_TASKS_BY_NODE = _Index(message=pb.Task, group_of=_node_of)
_REVISIONS_BY_SERVICE = _Index(message=pb.Revision, group_of=_service_of)
_INDEXES = (_TASKS_BY_SERVICE, _TASKS_BY_NODE, _REVISIONS_BY_SERVICE)


class Snapshot:
    """All objects at `revision`. Maps are from the store's key to the object."""

    __slots__ = ("_groups", "_objects", "revision")

    def __init__(
        self,
        revision: int,
        objects: Mapping[type[kinds.StoredObject], Objects],
        groups: Mapping[_Index, persistent.Map[Objects]],
    ) -> None:
        self.revision = revision
        self._objects = objects
        self._groups = groups

    def all(self, message: type[ObjectT]) -> Mapping[str, ObjectT]:
        """Every object of a kind: `snapshot.all(pb.Node)`."""
        return cast("Mapping[str, ObjectT]", self._objects[message])

    def get(self, message: type[ObjectT], name: str, *, namespace: str = kinds.CLUSTER_NAMESPACE) -> ObjectT | None:
        """One object by its name, or by its id where the kind is keyed by it."""
        return self.all(message).get(kinds.key_of(_KINDS[message], namespace, name))

    def by_key(self, key: str) -> kinds.StoredObject | None:
        """The object at a key of the store."""
        kind = kinds.kind_of_key(key)
        return self._objects[kind.message].get(key) if kind else None

    def tasks_of(self, namespace: str, service: str) -> Mapping[str, pb.Task]:
        """All tasks of a service, ended ones included."""
        return cast("Mapping[str, pb.Task]", self._group(_TASKS_BY_SERVICE, f"{namespace}/{service}"))

    def tasks_on(self, node_id: str) -> Mapping[str, pb.Task]:
        """All tasks that were given to a node."""
        assert node_id, "tasks without a node are asked for with unassigned_tasks"
        return cast("Mapping[str, pb.Task]", self._group(_TASKS_BY_NODE, node_id))

    def unassigned_tasks(self) -> Mapping[str, pb.Task]:
        """All tasks that no node was chosen for."""
        return cast("Mapping[str, pb.Task]", self._group(_TASKS_BY_NODE, ""))

    def revisions_of(self, namespace: str, service: str) -> Mapping[str, pb.Revision]:
        return cast("Mapping[str, pb.Revision]", self._group(_REVISIONS_BY_SERVICE, f"{namespace}/{service}"))

    def _group(self, index: _Index, name: str) -> Objects:
        return self._groups[index].get(name, _NONE)


class Derived(Generic[ObjectT, FoundT]):
    """What is worked out from all objects of one kind, once for each state of theirs: a planner asks with every change
    that leads to a snapshot, and most changes are of other kinds.

    `work_out` gets what `Snapshot.all` gives.
    """

    def __init__(self, message: type[ObjectT], work_out: Callable[[Mapping[str, ObjectT]], FoundT]) -> None:
        self._message: type[ObjectT] = message
        self._work_out: Callable[[Mapping[str, ObjectT]], FoundT] = work_out
        self._last: tuple[Mapping[str, ObjectT], FoundT] | None = None

    def of(self, snapshot: Snapshot) -> FoundT:
        objects = snapshot.all(self._message)
        if self._last is None or self._last[0] is not objects:
            self._last = objects, self._work_out(objects)
        return self._last[1]


class _Groups:
    """One index: group → the objects in it."""

    def __init__(self, index: _Index) -> None:
        self._index = index
        self._groups: persistent.Builder[Objects] = persistent.Builder()
        self._editing: dict[str, persistent.Builder[kinds.StoredObject]] = {}

    def apply(self, change: Change) -> None:
        group_before = self._index.group_of(change.before) if change.before is not None else None
        group_after = self._index.group_of(change.after) if change.after is not None else None
        if group_before is not None and group_before != group_after:
            self._edit(group_before).remove(change.key)
        if change.after is not None and group_after is not None:
            self._edit(group_after).set(change.key, change.after)

    def freeze(self) -> persistent.Map[Objects]:
        for name, builder in self._editing.items():
            objects = builder.freeze()
            if objects:
                self._groups.set(name, objects)
            elif self._groups.get(name) is not None:
                self._groups.remove(name)
        self._editing.clear()
        return self._groups.freeze()

    def _edit(self, name: str) -> persistent.Builder[kinds.StoredObject]:
        if name not in self._editing:
            self._editing[name] = persistent.Builder(self._groups.get(name))
        return self._editing[name]


class Editor:
    """Takes changes and makes snapshots; both cost what changed, not what is there."""

    def __init__(self) -> None:
        self._objects: dict[type[kinds.StoredObject], persistent.Builder[kinds.StoredObject]] = {
            kind.message: persistent.Builder() for kind in kinds.KINDS
        }
        self._groups = {index: _Groups(index) for index in _INDEXES}
        self._snapshot: Snapshot | None = None
        self.revision = 0

    def replace(self, kind: kinds.Kind, key: str, after: kinds.StoredObject | None) -> Change | None:
        """Set or remove (None) an object; None when there was nothing to remove."""
        objects = self._objects[kind.message]
        before = objects.get(key)
        if after is not None:
            objects.set(key, after)
        elif before is not None:
            objects.remove(key)
        else:
            return None
        change = Change(kind=kind, key=key, before=before, after=after)
        for index, groups in self._groups.items():
            if index.message is kind.message:
                groups.apply(change)
        self._snapshot = None
        return change

    def advance(self, revision: int) -> None:
        """The state so far is that of `revision`."""
        self.revision = revision
        self._snapshot = None

    def present_keys(self) -> Iterator[str]:
        """Of all objects, as they are now."""
        return itertools.chain.from_iterable(builder.freeze() for builder in self._objects.values())

    def version(self, key: str) -> int:
        """Of the object at a key; 0 when there is none."""
        kind = kinds.kind_of_key(key)
        value = self._objects[kind.message].get(key) if kind else None
        return value.meta.version if value is not None else 0

    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            self._snapshot = Snapshot(
                self.revision,
                {message: builder.freeze() for message, builder in self._objects.items()},
                {index: groups.freeze() for index, groups in self._groups.items()},
            )
        return self._snapshot
