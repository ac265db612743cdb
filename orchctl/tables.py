"""Tables: which columns each kind has, what stands in them, and how they line up.

Pure: objects, the names of nodes and the time come in, lines go out. Every cell is one clean line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from orchctl import amounts, phrases, terminal
from protos import families, kinds, units
from protos.orch.v1 import objects_pb2 as pb

T = TypeVar("T", bound=kinds.StoredObject)

NARROWEST = 20
"""The last column is never cut below this many signs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What cells need beside the object itself."""

    now_ms: int
    node_names: Mapping[str, str] = field(default_factory=dict)
    tasks_by_node: Mapping[str, int] = field(default_factory=dict)
    """Tasks that live on a node, by its id."""

    def node(self, node_id: str) -> str:
        """The node's name; its id when the node is not known any more."""
        return self.node_names.get(node_id, node_id) or "-"

    def age(self, moment_ms: int) -> str:
        """How long ago, in short."""
        return amounts.age(self.now_ms - moment_ms) if moment_ms else "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[T]):
    """`wide` columns are shown by `-o wide` only."""

    title: str
    cell: Callable[[T, View], str]
    wide: bool = False
    order: Callable[[T], int] | None = None
    """What rows are sorted by where the cell's text is no good for it."""


LABELS: Column[kinds.StoredObject] = Column(title="LABELS", cell=lambda value, _: phrases.labels(value.meta.labels))

_AGE: Column[Any] = Column(
    title="AGE",
    cell=lambda value, view: view.age(value.meta.created_at),
    order=lambda value: -value.meta.created_at,
)

_SERVICE: tuple[Column[pb.Service], ...] = (
    Column(title="NAME", cell=lambda service, _: service.meta.name),
    Column(title="MODE", cell=lambda service, _: phrases.mode(service)),
    Column(title="REPLICAS", cell=lambda service, _: phrases.replicas(service)),
    Column(title="IMAGE", cell=lambda service, _: service.spec.template.container.image),
    _AGE,
    Column(title="UPDATED", cell=lambda service, _: str(service.status.updated), wide=True),
    Column(title="REVISION", cell=lambda service, _: service.status.revision_id, wide=True),
    Column(title="ADDRESS", cell=lambda service, _: families.shown(service.status), wide=True),
    Column(title="PORTS", cell=lambda service, _: phrases.ports(service.spec.template.container.ports), wide=True),
    Column(title="STATUS", cell=lambda service, _: phrases.service_status(service)),
)
_TASK: tuple[Column[pb.Task], ...] = (
    Column(title="NAME", cell=lambda task, _: task.meta.name),
    Column(title="SERVICE", cell=lambda task, _: task.service, wide=True),
    Column(title="NODE", cell=lambda task, view: view.node(task.node_id)),
    Column(title="STATE", cell=lambda task, _: phrases.task_state(task)),
    Column(title="READY", cell=lambda task, _: phrases.yes_no(yes=task.status.ready)),
    Column(title="RESTARTS", cell=lambda task, _: str(task.status.restarts)),
    Column(title="ADDRESS", cell=lambda task, _: task.status.address or task.status.address6),
    _AGE,
    Column(title="ADDRESSES", cell=lambda task, _: families.shown(task.status), wide=True),
    Column(title="DESIRED", cell=lambda task, _: phrases.desired(task), wide=True),
    Column(title="REVISION", cell=lambda task, _: task.revision_id, wide=True),
    Column(title="EXIT", cell=lambda task, _: phrases.exit_code(task), wide=True),
    Column(title="MESSAGE", cell=lambda task, _: phrases.task_message(task)),
)
_NODE: tuple[Column[pb.Node], ...] = (
    Column(title="NAME", cell=lambda node, _: node.meta.name),
    Column(title="STATE", cell=lambda node, view: phrases.node_state_now(node, view.now_ms)),
    Column(title="AVAILABILITY", cell=lambda node, _: phrases.availability(node)),
    Column(title="ADDRESS", cell=lambda node, _: node.status.description.address),
    Column(
        title="CPU",
        cell=lambda node, _: units.format_cpu(node.status.description.capacity.cpu),
        order=lambda node: node.status.description.capacity.cpu,
    ),
    Column(
        title="MEMORY",
        cell=lambda node, _: amounts.size(node.status.description.capacity.memory),
        order=lambda node: node.status.description.capacity.memory,
    ),
    Column(title="TASKS", cell=lambda node, view: str(view.tasks_by_node.get(node.meta.id, 0))),
    _AGE,
    Column(title="ID", cell=lambda node, _: node.meta.id, wide=True),
    Column(title="SUBNET", cell=lambda node, _: families.shown(node.status, "subnet"), wide=True),
    Column(title="OS", cell=lambda node, _: node.status.description.os, wide=True),
    Column(title="KERNEL", cell=lambda node, _: node.status.description.kernel, wide=True),
    Column(title="AGENT", cell=lambda node, _: node.status.description.agent_version, wide=True),
    Column(title="MESSAGE", cell=lambda node, _: node.status.message, wide=True),
)
_REVISION: tuple[Column[pb.Revision], ...] = (
    Column(title="NAME", cell=lambda revision, _: revision.meta.name or revision.meta.id),
    Column(title="SERVICE", cell=lambda revision, _: revision.service),
    Column(title="NUMBER", cell=lambda revision, _: str(revision.number)),
    Column(title="IMAGE", cell=lambda revision, _: revision.template.container.image),
    _AGE,
    Column(title="ID", cell=lambda revision, _: revision.meta.id, wide=True),
)
_IMAGE: tuple[Column[pb.Image], ...] = (
    Column(title="NAME", cell=lambda image, _: image.meta.name),
    Column(title="DIGEST", cell=lambda image, _: amounts.digest(image.status.digest)),
    Column(title="SIZE", cell=lambda image, _: amounts.size(image.status.size), order=lambda image: image.status.size),
    Column(title="LAYERS", cell=lambda image, _: str(image.status.layers)),
    Column(title="PLATFORM", cell=lambda image, _: image.status.platform),
    _AGE,
    Column(title="FULL DIGEST", cell=lambda image, _: image.status.digest, wide=True),
)


_NETWORK: tuple[Column[pb.Network], ...] = (
    Column(title="NAME", cell=lambda network, _: network.meta.name),
    Column(title="INTERNAL", cell=lambda network, _: phrases.yes_no(yes=network.spec.internal)),
    _AGE,
)

_ENDPOINTS: tuple[Column[pb.Endpoints], ...] = (
    Column(title="SERVICE", cell=lambda one, _: one.meta.name),
    Column(title="ADDRESS", cell=lambda one, _: families.shown(one.status)),
    Column(title="PORTS", cell=lambda one, _: phrases.ports(one.status.ports)),
    Column(title="READY/ALL", cell=lambda one, _: phrases.ready_of_all(one.status.tasks)),
    Column(title="NETWORKS", cell=lambda one, _: " ".join(one.status.networks), wide=True),
    Column(title="ENDPOINTS", cell=lambda one, _: phrases.ready_addresses(one.status.tasks)),
)

_CLUSTER: tuple[Column[pb.Cluster], ...] = (
    Column(title="NAME", cell=lambda cluster, _: cluster.meta.name),
    Column(title="LAST ADDRESS", cell=lambda cluster, _: families.shown(cluster.status, "last_service_address")),
    Column(title="LAST SUBNET", cell=lambda cluster, _: families.shown(cluster.status, "last_subnet")),
)

_EVENT: tuple[Column[pb.Event], ...] = (
    Column(
        title="LAST SEEN",
        cell=lambda event, view: view.age(event.status.last_seen),
        order=lambda event: -event.status.last_seen,
    ),
    Column(title="TYPE", cell=lambda event, _: phrases.event_type(event)),
    Column(title="REASON", cell=lambda event, _: event.status.reason),
    Column(title="OBJECT", cell=lambda event, _: phrases.event_object(event.status.about)),
    Column(title="COUNT", cell=lambda event, _: str(event.status.count)),
    Column(
        title="FIRST SEEN",
        cell=lambda event, view: view.age(event.status.first_seen),
        wide=True,
        order=lambda event: -event.status.first_seen,
    ),
    Column(title="NAME", cell=lambda event, _: event.meta.name, wide=True),
    Column(title="BY", cell=lambda event, _: event.status.actor),
    Column(title="MESSAGE", cell=lambda event, _: event.status.message),
)


def columns(kind: kinds.Kind, *, wide: bool, with_namespace: bool) -> Sequence[Column[kinds.StoredObject]]:
    """The columns of a kind."""
    mine: Sequence[Column[kinds.StoredObject]] = _COLUMNS[kind.name]
    namespace: Column[kinds.StoredObject] = Column(title="NAMESPACE", cell=lambda value, _: value.meta.namespace)
    first = [namespace] if with_namespace and kind.namespaced else []
    return [*first, *(column for column in mine if wide or not column.wide)]


_COLUMNS: Mapping[str, Sequence[Column[kinds.StoredObject]]] = {
    "service": _SERVICE,  # type: ignore[dict-item]  # the kind's name says which type its columns take
    "task": _TASK,  # type: ignore[dict-item]
    "node": _NODE,  # type: ignore[dict-item]
    "revision": _REVISION,  # type: ignore[dict-item]
    "image": _IMAGE,  # type: ignore[dict-item]
    "network": _NETWORK,  # type: ignore[dict-item]
    "endpoints": _ENDPOINTS,  # type: ignore[dict-item]
    "event": _EVENT,  # type: ignore[dict-item]
    "cluster": _CLUSTER,  # type: ignore[dict-item]
}


def row(value: T, shown: Sequence[Column[T]], view: View) -> list[str]:
    """The cells of an object. An empty cell shows `-`, so that columns can be counted by other programs."""
    return [terminal.one_line(column.cell(value, view)) or "-" for column in shown]


def widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column has to be."""
    return [max(terminal.columns(cell) for cell in column) for column in zip(*rows, strict=True)]


def line(cells: Sequence[str], column_widths: Sequence[int], *, limit: int = 0) -> str:
    """The cells side by side. With a limit, the last cell is cut where the line would be longer."""
    head = "".join(
        cell + " " * (width - terminal.columns(cell) + 3)
        for cell, width in zip(cells[:-1], column_widths[:-1], strict=True)
    )
    last = cells[-1]
    return head + (terminal.cut(last, max(limit - terminal.columns(head), NARROWEST)) if limit else last)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, limit: int = 0) -> list[str]:
    """The lines of a table with its titles."""
    together = [list(titles), *rows]
    wide = widths(together)
    return [line(cells, wide, limit=limit) for cells in together]


def sort_key(value: kinds.StoredObject) -> tuple[str, str, int, int, str]:
    """Namespace, then name; tasks by service, slot and age, revisions by service and number, events by their time."""
    namespace = value.meta.namespace
    if isinstance(value, pb.Event):
        return ("", "", value.status.last_seen, value.status.first_seen, value.meta.name)
    if isinstance(value, pb.Task):
        return (namespace, value.service, value.slot, value.meta.created_at, value.meta.name)
    if isinstance(value, pb.Revision):
        return (namespace, value.service, value.number, 0, value.meta.name)
    return (namespace, value.meta.name, 0, 0, value.meta.id)
