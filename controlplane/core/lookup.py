"""Finds the objects that a request names, in a snapshot.

The rule: a name or an id that fits exactly wins; tasks and nodes may also be named by the beginning of their id, when
only one begins so. What is not found is answered with the nearest names.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from controlplane.core import endpoint_table, image_names, selectors
from controlplane.core import request_errors as errors
from controlplane.store import snapshots
from manifests import suggest
from protos import kinds
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb

DEFAULT_NAMESPACE = "default"
MAX_SHOWN = 3
MAX_COMPARED = 2_000
"""Names that a wrong one is compared with; each takes some 10 µs."""

SHORTEST_PREFIX = 4

ObjectT = TypeVar("ObjectT", bound=kinds.StoredObject)


def kind(name: str) -> kinds.Kind:
    """The kind of that name. Raises Invalid."""
    found = kinds.by_name(name)
    if found is None:
        known = [each.name for each in kinds.KINDS]
        hint = suggest.did_you_mean(name, known) or f"the kinds are {', '.join(known)}"
        raise errors.Invalid(f"there is no kind {name!r:.60}", hint=hint)
    return found


EndpointsOf = Callable[[snapshots.Snapshot], Mapping[str, pb.Endpoints]]
"""Whoever works out the only kind that nobody stores."""


def find(
    state: snapshots.Snapshot, reference: api.ObjectReference, endpoints_of: EndpointsOf = endpoint_table.endpoints_of
) -> kinds.StoredObject:
    """The object that a request names. Raises Unknown or Invalid."""
    wanted = kind(reference.kind)
    if not reference.name:
        raise errors.Invalid(f"no name was given: which {wanted.name}?")
    namespace = (reference.namespace or DEFAULT_NAMESPACE) if wanted.namespaced else kinds.CLUSTER_NAMESPACE
    name = _canonical(wanted, reference.name)
    present = _all(state, wanted, endpoints_of)
    exact = present.get(kinds.key_of(wanted, namespace, name))
    if exact is not None:
        return exact
    candidates = [value for key, value in present.items() if key.startswith(kinds.prefix(wanted, namespace))]
    return _choose(wanted, candidates, name, where=f" in namespace {namespace}" if wanted.namespaced else "")


def service(state: snapshots.Snapshot, namespace: str, name: str) -> pb.Service:
    """The service of that name or id."""
    found = find(state, api.ObjectReference(kind="service", namespace=namespace, name=name))
    assert isinstance(found, pb.Service)
    return found


def service_at(state: snapshots.Snapshot, qualified: str) -> pb.Service | None:
    """The service that `kinds.qualified` calls so; None when it is gone."""
    namespace, name = qualified.split("/")
    return state.get(pb.Service, name, namespace=namespace)


def task(state: snapshots.Snapshot, namespace: str, name: str) -> pb.Task:
    """The task of that id, or whose id begins so, where a service could have been named as well."""
    try:
        found = find(state, api.ObjectReference(kind="task", namespace=namespace, name=name))
    except errors.Unknown as unknown:
        known = sorted(one.meta.name for one in state.all(pb.Service).values() if one.meta.namespace == namespace)
        hint = suggest.did_you_mean(name, known[:MAX_COMPARED]) or unknown.hint
        text = f"there is no service or task {name!r:.100} in namespace {namespace}"
        raise errors.Unknown(text, hint=hint) from unknown
    assert isinstance(found, pb.Task)
    return found


def node(state: snapshots.Snapshot, name: str) -> pb.Node:
    """The node of that name or id."""
    found = find(state, api.ObjectReference(kind="node", name=name))
    assert isinstance(found, pb.Node)
    return found


def node_name(state: snapshots.Snapshot, node_id: str) -> str:
    """What people call a node; its id when it is not there any more."""
    found = state.get(pb.Node, node_id) if node_id else None
    return found.meta.name if found is not None else node_id


def _all(state: snapshots.Snapshot, wanted: kinds.Kind, endpoints_of: EndpointsOf) -> Mapping[str, kinds.StoredObject]:
    if wanted.derived:
        assert wanted.message is pb.Endpoints, "the only kind that nobody stores"
        return endpoints_of(state)
    return state.all(wanted.message)  # type: ignore[type-var]  # a kind's message is one of its classes


def _canonical(wanted: kinds.Kind, name: str) -> str:
    return image_names.canonical(name) if wanted.message is pb.Image and image_names.is_reference(name) else name


def _choose(wanted: kinds.Kind, candidates: Iterable[ObjectT], name: str, *, where: str) -> ObjectT:
    """The one of a kind that is meant by a name that is no key."""
    candidates = list(candidates)
    for meant in (
        [value for value in candidates if name == value.meta.id],
        [value for value in candidates if name == value.meta.name],
        [value for value in candidates if _begins(wanted, value, name)],
    ):
        if len(meant) == 1:
            return meant[0]
        if len(meant) > 1:
            ids = sorted(value.meta.id for value in meant)
            shown = ", ".join(ids[:MAX_SHOWN]) + (", …" if len(ids) > MAX_SHOWN else "")
            raise errors.Invalid(
                f"{len(ids)} {wanted.name}s{where} are meant by {name!r:.100}: {shown}", hint="name one by its id"
            )
    names = sorted({value.meta.name for value in candidates})
    hint = suggest.did_you_mean(name, names[:MAX_COMPARED]) or f"`orchctl get {wanted.name}` lists those that are there"
    raise errors.Unknown(f"there is no {wanted.name} {name!r:.100}{where}", hint=hint)


def _begins(wanted: kinds.Kind, value: kinds.StoredObject, name: str) -> bool:
    return wanted.message in {pb.Task, pb.Node} and len(name) >= SHORTEST_PREFIX and value.meta.id.startswith(name)


# Selections -------------------------------------------------------------------------------------------------------


class Selection:
    """A list request, made ready to be asked about objects. Raises Invalid for one that makes no sense."""

    def __init__(self, request: api.ListRequest) -> None:
        self.kind = kind(request.kind)
        self._request = request
        self._fits = selectors.parse(request.selector)
        if request.service and self.kind.message not in {pb.Task, pb.Revision}:
            raise errors.Invalid(f"{self.kind.name}s cannot be selected by service", hint="tasks and revisions can")
        if request.node and self.kind.message is not pb.Task:
            raise errors.Invalid(f"{self.kind.name}s cannot be selected by node", hint="tasks can")
        if request.HasField("about") and self.kind.message is not pb.Event:
            raise errors.Invalid(f"{self.kind.name}s are about nothing", hint="events can be selected like this")

    def take(
        self, state: snapshots.Snapshot, endpoints_of: EndpointsOf = endpoint_table.endpoints_of
    ) -> list[kinds.StoredObject]:
        """The selected objects, ordered by namespace and name."""
        chosen = (value for value in self._candidates(state, endpoints_of) if self.takes(state, value))
        return sorted(chosen, key=lambda value: (value.meta.namespace, value.meta.name, value.meta.id))

    def takes(self, state: snapshots.Snapshot, value: kinds.StoredObject) -> bool:
        """Whether an object is selected."""
        request = self._request
        if kinds.of(value) is not self.kind:
            return False
        if self.kind.namespaced and request.namespace and value.meta.namespace != request.namespace:
            return False
        if isinstance(value, pb.Task | pb.Revision) and request.service and value.service != request.service:
            return False
        if isinstance(value, pb.Task) and request.node and not self._is_on(state, value):
            return False
        if isinstance(value, pb.Event) and request.HasField("about") and not _is_about(value, request.about):
            return False
        if not self._fits(value.meta.labels):
            return False
        return all(value.meta.labels.get(key) == wanted for key, wanted in request.labels.items())

    def _is_on(self, state: snapshots.Snapshot, value: pb.Task) -> bool:
        return bool(value.node_id) and self._request.node in {value.node_id, node_name(state, value.node_id)}

    def _candidates(self, state: snapshots.Snapshot, endpoints_of: EndpointsOf) -> Iterator[kinds.StoredObject]:
        """Few objects when an index knows them."""
        namespace, of_service = self._request.namespace, self._request.service
        if of_service and namespace:
            group = state.tasks_of if self.kind.message is pb.Task else state.revisions_of
            yield from group(namespace, of_service).values()
        else:
            yield from _all(state, self.kind, endpoints_of).values()


def _is_about(event: pb.Event, wanted: api.ObjectReference) -> bool:
    """About the object itself, or about a task of the service."""
    about = event.status.about
    if about.namespace != wanted.namespace:
        return False
    if wanted.kind == "service" and about.service == wanted.name:
        return True
    return about.kind == wanted.kind and wanted.name in {about.name, about.id}
