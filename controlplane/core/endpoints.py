"""What the network of the nodes has to know of each service: its address, its ports, its tasks and who may reach it.

A task is listed from when it has an address until it has ended. It is *ready*, and gets new connections, while it runs,
answers, is not to stop, and its node can be expected to be there:

| its node is   | is its task ready? |
|---|---|
| READY         | yes |
| DISCONNECTED, and its agent is expected back | yes |
| DISCONNECTED  | only while no task of the service is ready on a node that is READY |
| DOWN, or gone | no |

An agent that has said that it comes back leaves a machine that is well. Its tasks go on, and nothing is gained by
moving their connections for the seconds of a restart. A container that ends meanwhile is started again only when the
agent is back, and refuses its share until then: the time is short, and who is late is DOWN at once.

DISCONNECTED without that says that the leader has lost an agent a moment ago. Mostly the agent has died and is being
started again, and the task works on; sometimes the machine is dead, and whatever is sent there is lost. Passing such a
task over while there is another costs nothing in the first case and saves connections in the second; a service that has
nothing else keeps what it has.
After a change of leaders no node is called DISCONNECTED before it had the time to come.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from controlplane.core import addresses, published, revisions, tasks
from manifests import networking
from protos import families, states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb

FindService = Callable[[str, str], pb.Service | None]
"""By namespace and name."""


def network_service(
    service: pb.Service,
    known: Collection[pb.Revision],
    members: Iterable[pb.Task],
    *,
    node_states: Mapping[str, int],
    internal_networks: Collection[str],
    find: FindService,
    lost: frozenset[published.PortKey] = frozenset(),
) -> wire.NetworkService | None:
    """The service as nodes are told of it; None before it has a revision.

    `node_states`: of every node, by id; READY of one whose agent is expected back. `internal_networks`: as
    `namespace/name`. `lost`: ports that it would publish and another service has.
    """
    newest = revisions.present(service, known)
    if newest is None:
        return None
    ports = newest.template.container.ports
    spec = service.spec
    networks = networking.networks_of(service)
    stands = addresses.stands_for_tasks(spec, ports)
    return wire.NetworkService(
        id=service.meta.id,
        namespace=service.meta.namespace,
        name=service.meta.name,
        address=service.status.address if stands else "",
        address6=service.status.address6 if stands else "",
        ports=published.without(ports, lost) if lost else ports,
        session_affinity=spec.session_affinity or pb.SESSION_AFFINITY_NONE,
        external_traffic_policy=spec.external_traffic_policy or pb.EXTERNAL_TRAFFIC_POLICY_CLUSTER,
        endpoints=_endpoints(members, node_states, _other_ports(known, newest)),
        networks=networks,
        allow=_allowed(service, ports, find),
        internal=all(network in internal_networks for network in networks),
    )


def sources_of(service: pb.Service) -> frozenset[str]:
    """The services that its rules name, as `namespace/name`: when one of them comes or goes, this one changes."""
    return frozenset(networking.qualified(getattr(rule, "from"), service.meta.namespace) for rule in service.spec.allow)


def _other_ports(known: Iterable[pb.Revision], newest: pb.Revision) -> dict[str, Sequence[pb.Port]]:
    """By revision, where they are others than the newest has. Its tasks go on with them until they are replaced."""
    present = [*newest.template.container.ports]
    older = {revision.meta.id: [*revision.template.container.ports] for revision in known}
    return {name: ports for name, ports in older.items() if ports != present}


def _endpoints(
    members: Iterable[pb.Task], node_states: Mapping[str, int], other_ports: Mapping[str, Sequence[pb.Port]]
) -> list[wire.Endpoint]:
    listed = [task for task in members if families.every(task.status) and not states.is_terminal(task.status.state)]
    serving = [task for task in listed if tasks.is_ready(task)]
    certain = {task.meta.id for task in serving if node_states.get(task.node_id) == pb.NODE_STATE_READY}
    ready = certain or {task.meta.id for task in serving if node_states.get(task.node_id) == pb.NODE_STATE_DISCONNECTED}
    return [
        wire.Endpoint(
            task_id=task.meta.id,
            slot=task.slot,
            node_id=task.node_id,
            address=task.status.address,
            address6=task.status.address6,
            ready=task.meta.id in ready,
            ports=other_ports.get(task.revision_id),
        )
        for task in sorted(listed, key=lambda task: (task.slot, task.meta.id))
    ]


def _allowed(service: pb.Service, ports: Collection[pb.Port], find: FindService) -> list[wire.AllowedSource]:
    """One for each rule whose service exists. A rule that names ports of which none is there any more opens nothing."""
    made = []
    for rule in service.spec.allow:
        namespace, _, name = networking.qualified(getattr(rule, "from"), service.meta.namespace).partition("/")
        source = find(namespace, name)
        named = [port for text in rule.ports for port in networking.ports_named(ports, text)]
        if source is None or (rule.ports and not named):
            continue
        opened = [pb.Port(target=port.target, protocol=port.protocol or pb.PROTOCOL_TCP) for port in named]
        made.append(wire.AllowedSource(service_id=source.meta.id, ports=opened))
    return made
