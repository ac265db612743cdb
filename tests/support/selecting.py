"""Which of its objects `FakeControl` means and lists, as a control plane would."""

from controlplane.core import selectors
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb


def named(value: kinds.StoredObject, kind: str, namespace: str, name: str) -> bool:
    """Whether a reference means this object."""
    mine = kinds.of(value)
    same_place = not mine.namespaced or value.meta.namespace == namespace
    return mine.name == kind and same_place and name in {value.meta.name, value.meta.id}


def fits(value: kinds.StoredObject, selection: control.ListRequest) -> bool:
    """Whether a list with these wishes has this object."""
    if kinds.of(value).name != selection.kind or selection.namespace not in {"", value.meta.namespace}:
        return False
    if isinstance(value, pb.Task | pb.Revision) and selection.service not in {"", value.service}:
        return False
    if isinstance(value, pb.Task) and selection.node not in {"", value.node_id}:
        return False
    if isinstance(value, pb.Event) and selection.HasField("about") and not _is_about(value.status.about, selection):
        return False
    return selectors.parse(selection.selector)(value.meta.labels)


def _is_about(about: pb.EventObject, selection: control.ListRequest) -> bool:
    """About the object, or about a task of the service."""
    wanted = selection.about
    if about.namespace != wanted.namespace:
        return False
    same = about.kind == wanted.kind and wanted.name in {about.name, about.id}
    return same or (wanted.kind == "service" and about.kind == "task" and about.service == wanted.name)
