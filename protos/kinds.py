"""The kinds of objects: their names, their keys in the store, and what belongs to a namespace. One row a kind."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote

from protos.orch.v1 import objects_pb2 as pb

PREFIX = "/orch/"
CLUSTER_NAMESPACE = "_"
"""Stands where a key of an object of the whole cluster has no namespace."""

StoredObject: TypeAlias = (
    pb.Service | pb.Revision | pb.Task | pb.Node | pb.Image | pb.Network | pb.Event | pb.Endpoints | pb.Cluster
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`name` in small letters is what keys, requests and `orchctl get` use; `message` is what manifests call it."""

    name: str
    message: type[StoredObject]
    namespaced: bool
    keyed_by_id: bool = False
    """Else by name. Ids are used where names may come again with another meaning."""
    written_by_people: bool = False
    """A manifest may hold it."""
    derived: bool = False
    """Nobody stores it: it is worked out when somebody asks."""

    @property
    def title(self) -> str:
        """As manifests write it: `Service`."""
        return self.message.DESCRIPTOR.name


KINDS = (
    Kind(name="service", message=pb.Service, namespaced=True, written_by_people=True),
    Kind(name="revision", message=pb.Revision, namespaced=True, keyed_by_id=True),
    Kind(name="task", message=pb.Task, namespaced=True, keyed_by_id=True),
    Kind(name="node", message=pb.Node, namespaced=False, keyed_by_id=True, written_by_people=True),
    Kind(name="image", message=pb.Image, namespaced=False),
    Kind(name="network", message=pb.Network, namespaced=True, written_by_people=True),
    Kind(name="event", message=pb.Event, namespaced=True, keyed_by_id=True),
    Kind(name="endpoints", message=pb.Endpoints, namespaced=True, derived=True),
    Kind(name="cluster", message=pb.Cluster, namespaced=False),
)

_BY_NAME = {kind.name: kind for kind in KINDS}
_BY_MESSAGE = {kind.message: kind for kind in KINDS}


def by_name(name: str) -> Kind | None:
    """The kind of that name: `service`."""
    return _BY_NAME.get(name)


def of(value: StoredObject) -> Kind:
    """The kind of an object."""
    return _BY_MESSAGE[type(value)]


def prefix(kind: Kind, namespace: str = "") -> str:
    """What the keys of a kind (in a namespace) begin with."""
    return f"{PREFIX}{kind.name}/{namespace}/" if namespace else f"{PREFIX}{kind.name}/"


def key(value: StoredObject) -> str:
    """`/orch/<kind>/<namespace>/<name-or-id>`; a name with `/` in it is percent-encoded."""
    kind = of(value)
    namespace = value.meta.namespace if kind.namespaced else CLUSTER_NAMESPACE
    return key_of(kind, namespace, value.meta.id if kind.keyed_by_id else value.meta.name)


def key_of(kind: Kind, namespace: str, name: str) -> str:
    """The key of the object of that name (or id, where the kind is keyed by it)."""
    assert namespace, f"a {kind.name}'s key needs a namespace"
    assert name, f"a {kind.name}'s key needs a name or id"
    return f"{PREFIX}{kind.name}/{namespace}/{quote(name, safe=':@.')}"


def kind_of_key(text: str) -> Kind | None:
    """The kind that a key of the store belongs to."""
    return _BY_NAME.get(text.removeprefix(PREFIX).partition("/")[0])


def wrap(value: StoredObject) -> pb.Object:
    """The envelope that the API sends an object in."""
    return pb.Object(**{of(value).name: value})  # type: ignore[arg-type]  # the field is named after the kind


def unwrap(envelope: pb.Object) -> StoredObject:
    """The object in an envelope. ValueError when it is empty."""
    field = envelope.WhichOneof("kind")
    if field is None:
        raise ValueError("an object without a kind")
    value: StoredObject = getattr(envelope, field)
    return value


def qualified(value: StoredObject) -> str:
    """`default/web`: what an object of a namespace is called where its kind is clear."""
    return f"{value.meta.namespace}/{value.meta.name}"


def service_of(value: pb.Task | pb.Revision) -> str:
    """`default/web`: the service that it belongs to, as `qualified` calls that."""
    return f"{value.meta.namespace}/{value.service}"


def label(value: StoredObject) -> str:
    """How messages name an object: `Service default/hello`, `Node n1`."""
    kind = of(value)
    name = value.meta.name or value.meta.id
    return f"{kind.title} {value.meta.namespace}/{name}" if kind.namespaced else f"{kind.title} {name}"


def written_by_people() -> Iterator[Kind]:
    """The kinds that a manifest may hold."""
    return (kind for kind in KINDS if kind.written_by_people)
