"""In which order services end: whoever depends on another comes before it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from manifests import dependencies
from orchctl import queries
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


def first(stub: "ControlStub", services: Sequence[control.ObjectReference]) -> list[control.ObjectReference]:
    """The services, dependents first and else as they were; what they depend on is asked for when there are several."""
    if len(services) < 2:
        return list(services)
    stored = [
        value
        for namespace in sorted({one.namespace for one in services})
        for value in queries.objects(stub, control.ListRequest(kind="service", namespace=namespace))
        if isinstance(value, pb.Service)
    ]
    named = {f"{one.namespace}/{one.name}": one for one in services}
    return [named[key] for key in dependencies.dependents_first(named, dependencies.graph_of(stored))]
