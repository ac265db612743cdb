"""The pages of what belongs to the network: endpoints, networks, and what addresses were given. Pure, as `pages`."""

from collections.abc import Iterable, Iterator, Sequence

from orchctl import phrases, tables
from orchctl.pages import facts, head, section
from orchctl.tables import View
from protos import families, kinds
from protos.orch.v1 import objects_pb2 as pb

DEFAULT = "default"
"""The network that every namespace has although nobody made it."""


def endpoints(value: pb.Endpoints, view: View) -> list[str]:
    """Where a service leads to."""
    status = value.status
    return [
        *head(value, view),
        *facts(
            ("Address", families.shown(status)),
            ("Ports", phrases.ports(status.ports)),
            ("Ready", phrases.ready_of_all(status.tasks)),
            ("Networks", ", ".join(status.networks)),
            ("Outside", "not reached: all its networks are internal" if status.internal else ""),
            ("Allowed", ", ".join(map(phrases.source, status.allowed))),
        ),
        *section("Endpoints", _tasks([value], view)),
    ]


def network(value: pb.Network, members: Sequence[pb.Endpoints], view: View) -> list[str]:
    """A network with the services and tasks in it. `members`: of the whole cluster, those that are in it or not."""
    inside = members_of(value, members)
    return [
        *head(value, view),
        *facts(
            ("Internal", phrases.yes_no(yes=value.spec.internal)),
            ("Services", str(len(inside))),
            ("Tasks", str(sum(len(one.status.tasks) for one in inside))),
        ),
        *section("Services", _services(inside)),
        *section("Tasks", _tasks(inside, view)),
        *section("Allowed in from outside", list(_allowed(inside))),
    ]


def networks(values: Sequence[pb.Network], members: Sequence[pb.Endpoints], *, with_namespace: bool) -> list[str]:
    """A table of networks with how many are in each."""
    titles = ["NAME", "INTERNAL", "SERVICES", "TASKS"]
    rows = []
    for value in values:
        inside = members_of(value, members)
        tasks = sum(len(one.status.tasks) for one in inside)
        row = [value.meta.name, phrases.yes_no(yes=value.spec.internal), str(len(inside)), str(tasks)]
        rows.append([value.meta.namespace, *row] if with_namespace else row)
    return tables.table(["NAMESPACE", *titles] if with_namespace else titles, rows)


def members_of(value: pb.Network, members: Iterable[pb.Endpoints]) -> list[pb.Endpoints]:
    """The services that are in a network."""
    name = kinds.qualified(value)
    return [one for one in members if name in one.status.networks]


def default_network(namespace: str) -> pb.Network:
    """The one that nobody made."""
    return pb.Network(meta=pb.Meta(name=DEFAULT, namespace=namespace))


def cluster(value: pb.Cluster, view: View) -> list[str]:
    """What the leader remembers."""
    status = value.status
    return [
        *head(value, view),
        *facts(
            ("Last address", families.shown(status, "last_service_address")),
            ("Last subnet", families.shown(status, "last_subnet")),
        ),
    ]


def _services(members: Iterable[pb.Endpoints]) -> list[str]:
    rows = [
        [
            kinds.qualified(one),
            families.shown(one.status) or "-",
            phrases.ports(one.status.ports) or "-",
            phrases.ready_of_all(one.status.tasks),
        ]
        for one in members
    ]
    return tables.table(["SERVICE", "ADDRESS", "PORTS", "READY/ALL"], rows) if rows else []


def _tasks(members: Iterable[pb.Endpoints], view: View) -> list[str]:
    rows = [
        [task.id, view.node(task.node_id), families.shown(task), phrases.yes_no(yes=task.ready)]
        for one in members
        for task in one.status.tasks
    ]
    return tables.table(["TASK", "NODE", "ADDRESS", "READY"], rows) if rows else []


def _allowed(members: Iterable[pb.Endpoints]) -> Iterator[str]:
    for one in members:
        for source in one.status.allowed:
            yield f"{phrases.source(source)} of {one.meta.namespace}/{one.meta.name}"
