"""What each node is to try when somebody asks whether the network works.

The rule: the leader says what should be reached, from what is stored. What an agent believes may be what is wrong.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from controlplane.core import assignments
from protos import absence
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

_STATES = {pb.NODE_STATE_DISCONNECTED: "its agent has no session with the leader", pb.NODE_STATE_DOWN: "it is down"}


def request_for(
    node: pb.Node,
    known: Collection[pb.Node],
    services: Iterable[wire.NetworkService],
    settings: wire.NodeNetwork,
    *,
    timeout_ms: int,
) -> wire.NetworkCheckRequest:
    """What one node tries: every other node that is there, and every service that has a ready endpoint."""
    there = [other for other in known if other.status.state == pb.NODE_STATE_READY]
    return wire.NetworkCheckRequest(
        network=assignments.network_of(node, assignments.peers_of(there, settings, {}), settings),
        services=[tried for service in services if (tried := _tried(service)) is not None],
        timeout=timeout_ms,
    )


def absent(known: Iterable[pb.Node]) -> list[api.NetworkFinding]:
    """A finding for each node that nothing can be tried from or to."""
    return [
        api.NetworkFinding(
            source=node.meta.name,
            target=node.meta.name,
            what="its agent",
            problem=_problem(node),
        )
        for node in known
        if node.status.state != pb.NODE_STATE_READY
    ]


def _problem(node: pb.Node) -> str:
    if absence.is_expected(node):
        return "it is being restarted"
    return _STATES.get(node.status.state, "it is not ready")


def with_names(
    findings: Sequence[api.NetworkFinding], source: pb.Node, names: Mapping[str, str]
) -> list[api.NetworkFinding]:
    """What a node has found, with names instead of ids."""
    return [
        api.NetworkFinding(
            source=source.meta.name,
            target=names.get(finding.target, finding.target),
            what=finding.what,
            problem=finding.problem,
            microseconds=finding.microseconds,
            unknown=finding.unknown,
        )
        for finding in findings
    ]


def _tried(service: wire.NetworkService) -> wire.NetworkService | None:
    ready = [one for one in service.endpoints if one.ready]
    if not ready:
        return None
    return wire.NetworkService(
        id=service.id,
        namespace=service.namespace,
        name=service.name,
        address=service.address,
        address6=service.address6,
        ports=service.ports,
        endpoints=ready,
    )
