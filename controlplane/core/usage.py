"""What nodes have counted, under the names that people know.

The rule: a node knows addresses and ids, the leader knows whose they are. What nobody has any more is left out: the
address of a service that has been deleted counts on for a while.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from protos.traffic import Name


def named(
    counters: wire.NodeCounters, node: pb.Node, owners_of: Mapping[str, Name], tasks: Mapping[str, pb.Task]
) -> api.NodeUsage:
    """What a node has counted; `tasks` by id."""
    usage = api.NodeUsage()
    usage.CopyFrom(counters.usage)
    usage.node = node.meta.name
    for used in usage.tasks:
        if (task := tasks.get(used.task_id)) is not None:
            used.name, used.namespace, used.service = task.meta.name, task.meta.namespace, task.service
    usage.services.extend(_by_service(counters.traffic, owners_of))
    return usage


def unknown(node: pb.Node, why: str) -> api.NodeUsage:
    """Of a node that does not tell."""
    return api.NodeUsage(node=node.meta.name, problem=why)


def _by_service(counters: Iterable[wire.TrafficCounter], owners_of: Mapping[str, Name]) -> list[api.ServiceTraffic]:
    """The sum over a service's address, published ports and tasks."""
    sums: dict[Name, api.ServiceTraffic] = defaultdict(api.ServiceTraffic)
    for counter in counters:
        if (name := owners_of.get(counter.key)) is not None:
            into = sums[name]
            into.namespace, into.service = name
            into.connections += counter.connections
            into.refused += counter.refused
            into.packets += counter.packets
            into.bytes += counter.bytes
    return [sums[name] for name in sorted(sums)]
