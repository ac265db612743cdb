"""Whether services are spread again once nothing happens any more. That what moves moves gently is for others to say.

Only services without wishes are judged, which every node takes; and only where each control plane moves tasks, since
any of them may lead.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator

from controlplane.core import scheduler
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import particulars
from tests.sim.cluster import Cluster
from tests.sim.rules import Rules
from tests.sim.violation import Violation

EVEN = "spread again"
WITHIN_S = 300.0
"""Some services allow one move a minute, and none has more than five tasks."""
LOOK_EVERY_S = 5.0


async def reached(rules: Rules, cluster: Cluster) -> None:
    """Returns once every service is spread. Raises Violation when that does not come."""
    planes = cluster.control_planes.values()
    if cluster.strategy is not scheduler.Strategy.SPREAD or not all(one.moves_per_minute for one in planes):
        return
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WITHIN_S
    while uneven := list(_uneven(rules)):
        if loop.time() > deadline:
            raise Violation(EVEN, f"not within {WITHIN_S:g} s: {'; '.join(uneven)}")
        await asyncio.sleep(LOOK_EVERY_S)


def _uneven(rules: Rules) -> Iterator[str]:
    open_to_all = [node.meta.id for node in rules.nodes() if _takes_anybody(node)]
    templates = rules.templates().values()
    for service in rules.services():
        mine = [task for task in rules.tasks() if kinds.service_of(task) == kinds.qualified(service)]
        kept_away = any(service.meta.name in particulars.strangers(one, "") for one in templates)
        if not _is_at_home_anywhere(service) or kept_away or any(states.is_terminal(one.status.state) for one in mine):
            continue
        counts = Counter(task.node_id for task in mine)
        numbers = [counts[node_id] for node_id in open_to_all]
        if numbers and max(numbers) - min(numbers) > 1:
            yield f"{kinds.label(service)} has {sorted(numbers)} tasks on its nodes"


def _takes_anybody(node: pb.Node) -> bool:
    active = node.spec.availability in {pb.AVAILABILITY_UNSPECIFIED, pb.AVAILABILITY_ACTIVE}
    return active and node.status.state == pb.NODE_STATE_READY and not node.spec.taints


def _is_at_home_anywhere(service: pb.Service) -> bool:
    """It wants to be spread, and neither wishes nor what it takes of nodes stand in its way."""
    spec, template = service.spec, service.spec.template
    moves = spec.rebalance.mode != pb.REBALANCE_MODE_OFF and not spec.on_node_loss.fence
    one_more = spec.update.order != pb.UPDATE_ORDER_STOP_FIRST and spec.update.max_surge not in {"0", "0%"}
    one_more = one_more and bool(spec.update.max_surge or not spec.update.max_unavailable)
    placement = pb.Placement(tolerations=template.placement.tolerations)
    takes = template.container.resources.reservations
    little = not takes.memory and not takes.pids and not takes.disk and not takes.generic
    alone = not template.sidecars and not template.init
    on_the_host = any(port.mode == pb.PUBLISH_MODE_HOST for port in template.container.ports)
    replicated = spec.mode != pb.SERVICE_MODE_GLOBAL and not particulars.is_job(service)
    unbound = not on_the_host and template.placement == placement
    return moves and one_more and replicated and little and alone and unbound
