"""Objects for tests, with everything that a test does not care about filled in."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

from controlplane.core import plan
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb

T = TypeVar("T", bound=kinds.StoredObject)

NOW_MS = 1_700_000_000_000


def template(image: str = "hello", **container: object) -> pb.TaskTemplate:
    """A task template with one container."""
    return pb.TaskTemplate(container=pb.Container(image=image, **container))  # type: ignore[arg-type]  # fields by name


def service(name: str = "web", replicas: int = 3, image: str = "hello", version: int = 1) -> pb.Service:
    """A replicated service as the API stores it."""
    return pb.Service(
        meta=pb.Meta(id=f"id-{name}", name=name, namespace="default", generation=1, version=version),
        spec=pb.ServiceSpec(replicas=replicas, template=template(image)),
    )


def revision(of: pb.Service, number: int = 1, image: str | None = None) -> pb.Revision:
    """A revision of the service; without `image` of its present template."""
    written = of.spec.template if image is None else template(image)
    name = f"{of.meta.name}-{number}"
    meta = pb.Meta(id=f"{name}-{of.meta.id}", name=name, namespace=of.meta.namespace, version=1)
    return pb.Revision(meta=meta, service=of.meta.name, number=number, template=written, written=written)


def task(
    slot: int = 1,
    state: states.State = states.RUNNING,
    *,
    of: str = "web",
    revision_id: str = "web-1-id-web",
    node: str = "n1",
    ident: str = "",
    desired: pb.DesiredState.ValueType = pb.DESIRED_STATE_RUNNING,
    created_at: int = NOW_MS,
    **status: object,
) -> pb.Task:
    """A task; a running one is ready unless `ready` says otherwise."""
    name = ident or f"{of}-{slot}-{next(_numbers):08d}"
    status.setdefault("ready", state == states.RUNNING)
    status.setdefault("at", created_at)
    return pb.Task(
        meta=pb.Meta(id=name, name=name, namespace="default", version=1, created_at=created_at),
        service=of,
        revision_id=revision_id,
        slot=slot,
        node_id=node if state > states.PENDING else "",
        desired_state=desired,
        status=pb.TaskStatus(state=state, **status),  # type: ignore[arg-type]  # fields by name
    )


_numbers = itertools.count()


def node(
    name: str = "n1",
    *,
    state: pb.NodeState.ValueType = pb.NODE_STATE_READY,
    availability: pb.Availability.ValueType = pb.AVAILABILITY_ACTIVE,
    cpu: int = 4_000,
    memory: int = 2**30,
    tasks: int = 100,
    since: int = NOW_MS,
) -> pb.Node:
    """A node whose id is its name."""
    capacity = pb.NodeCapacity(cpu=cpu, memory=memory, tasks=tasks)
    return pb.Node(
        meta=pb.Meta(id=name, name=name, version=1),
        spec=pb.NodeSpec(availability=availability),
        status=pb.NodeStatus(
            state=state,
            since=since,
            subnet=f"10.112.{int(name.strip('n') or 0)}.0/24",
            description=pb.NodeDescription(address=f"192.0.2.{int(name.strip('n') or 0)}", capacity=capacity),
        ),
    )


def suffixes() -> Iterator[str]:
    """Random parts of names that are not random."""
    return (f"s{number:07d}" for number in itertools.count())


class Shelf:
    """Keeps objects and applies plans to them, with the store's compare-and-swap."""

    def __init__(self, objects: Iterable[kinds.StoredObject]) -> None:
        self._objects = {kinds.key(one): one for one in objects}
        self._revision = max((one.meta.version for one in self._objects.values()), default=0)

    def all(self, message: type[T]) -> list[T]:
        """Every object of a kind, in the order of keys."""
        return [one for _, one in sorted(self._objects.items()) if isinstance(one, message)]

    def put(self, value: kinds.StoredObject) -> None:
        """Writes whatever is there."""
        self._revision += 1
        value.meta.version = self._revision
        self._objects[kinds.key(value)] = value

    def apply(self, made: plan.Plan) -> plan.Plan:
        """Commits a plan; a version that is not there is a failure of the test."""
        for change in made.changes:
            there = self._objects.get(change.key)
            assert (there.meta.version if there is not None else 0) == change.value.meta.version, change.describe()
            if isinstance(change, plan.Remove):
                del self._objects[change.key]
            else:
                self.put(plan.copy(change.value))
        return made
