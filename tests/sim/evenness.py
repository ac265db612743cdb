"""Whether a service is spread again after one of the nodes was emptied and has come back. That what moves moves gently,
and not for nothing, is for others to say.
"""

import asyncio
from collections import Counter

from controlplane.core import scheduler
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.cluster import Cluster
from tests.sim.rules import Rules
from tests.sim.violation import Violation

EVEN = "spread again"
PLAIN = "plain"
"""A service that every node takes, that has more tasks than there are nodes, and that nobody wishes anything of."""
WITHIN_S = 120.0
LOOK_EVERY_S = 2.0


def plain(image: str) -> pb.ServiceSpec:
    """What people apply before they empty a node."""
    reservations = pb.ResourceReservations(cpu=10)
    container = pb.Container(image=image, resources=pb.Resources(reservations=reservations))
    return pb.ServiceSpec(replicas=6, template=pb.TaskTemplate(container=container))


async def reached(rules: Rules, cluster: Cluster) -> None:
    """Returns once it is spread, or when whoever leads moves nothing. Raises Violation when that does not come."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WITHIN_S
    while numbers := _uneven(rules):
        leader = cluster.control_planes.get(cluster.leader())
        if cluster.strategy is not scheduler.Strategy.SPREAD or (leader and not leader.moves_per_minute):
            return
        if loop.time() > deadline:
            raise Violation(EVEN, f"{PLAIN} still has {numbers} tasks on its nodes {WITHIN_S:g} s after all was well")
        await asyncio.sleep(LOOK_EVERY_S)


def _uneven(rules: Rules) -> list[int]:
    """How many tasks the nodes have that take anybody; empty when that could not be better."""
    alive = [task.node_id for task in rules.tasks() if task.service == PLAIN and task.status.state == states.RUNNING]
    counts = Counter(alive)
    numbers = sorted(counts[node.meta.id] for node in rules.nodes() if _takes_anybody(node))
    return numbers if numbers and numbers[-1] - numbers[0] > 1 else []


def _takes_anybody(node: pb.Node) -> bool:
    active = node.spec.availability in {pb.AVAILABILITY_UNSPECIFIED, pb.AVAILABILITY_ACTIVE}
    return active and node.status.state == pb.NODE_STATE_READY and not node.spec.taints
