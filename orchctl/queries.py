"""Lists of objects, and what their tables need beside them."""

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from orchctl import amounts, client, tables, terminal
from protos import kinds, states
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


def objects(stub: "ControlStub", selection: control.ListRequest) -> list[kinds.StoredObject]:
    """The objects that a selection holds, sorted for people. Says so when the list is an old one."""
    response = stub.List(selection, timeout=client.CALL_TIMEOUT_S)
    if response.stale:
        terminal.note(f"warning: the store is out of reach; this is as of {amounts.age(response.stale_for)} ago")
    return sorted(map(kinds.unwrap, response.objects), key=tables.sort_key)


def endpoints(stub: "ControlStub") -> list[pb.Endpoints]:
    """Of every service of the cluster: networks may have services of other namespaces in them."""
    return [one for one in objects(stub, control.ListRequest(kind="endpoints")) if isinstance(one, pb.Endpoints)]


def events(stub: "ControlStub", about: kinds.StoredObject) -> list[pb.Event]:
    """About an object, the newest last; about a service, those about its tasks, too."""
    kind = kinds.of(about)
    found = objects(stub, events_about(kind, about.meta.name or about.meta.id, about.meta.namespace))
    return [one for one in found if isinstance(one, pb.Event)]


def events_about(kind: kinds.Kind, name: str, namespace: str) -> control.ListRequest:
    """The selection of what has happened to one object."""
    where = namespace if kind.namespaced else ""
    reference = control.ObjectReference(kind=kind.name, namespace=where, name=name)
    return control.ListRequest(kind="event", namespace=where or kinds.CLUSTER_NAMESPACE, about=reference)


def find(stub: "ControlStub", kind: kinds.Kind, name: str, namespace: str) -> kinds.StoredObject:
    """One object by name or id. NotFound when there is none."""
    reference = control.ObjectReference(kind=kind.name, namespace=namespace if kind.namespaced else "", name=name)
    return kinds.unwrap(stub.Get(control.GetRequest(reference=reference), timeout=client.CALL_TIMEOUT_S))


def view(stub: "ControlStub", shown: Collection[str], now_ms: int) -> tables.View:
    """What the tables of these kinds need: nodes' names beside tasks, numbers of tasks beside nodes."""
    nodes = objects(stub, control.ListRequest(kind="node")) if "task" in shown else []
    tasks = objects(stub, control.ListRequest(kind="task")) if "node" in shown else []
    return tables.View(
        now_ms=now_ms,
        node_names={node.meta.id: node.meta.name for node in nodes},
        tasks_by_node=Counter(
            task.node_id for task in tasks if isinstance(task, pb.Task) and not states.is_terminal(task.status.state)
        ),
    )
