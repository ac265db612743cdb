"""What people ask of containers around the main one, of services that wait for others, and of ones for a while.

Their wishes can be fulfilled: dependencies run from `web` to `db` and never back, and one that is not there in the end
is taken out again.
"""

import random
from collections.abc import Iterable, Mapping

from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_agent import ONCE

SMALL_BYTES = 2**26
"""Tasks that reserve no more than this have room for others beside them, wherever they are."""

ASKED_EVERY_MS = 2_000
"""How often a sidecar is asked whether it is ready: more than once within every `progressDeadline`, since a rollout
that no failure stops gives each new task so long, again and again.
"""

LARGE_CPU = 2_100
"""More than half of a node."""


def add_around(chance: random.Random, template: pb.TaskTemplate) -> None:
    """Containers before and beside the main one, and hooks."""
    image = "hello:1"
    small = template.container.resources.reservations.memory <= SMALL_BYTES
    if chance.random() < 0.3:
        for number in range(chance.randint(1, 2)):
            one = template.init.add(name=f"first{number}", image=image, command=[ONCE])
            one.resources.reservations.memory = 2 * SMALL_BYTES if small else 0
    if chance.random() < 0.3:
        for number in range(chance.randint(1, 2)):
            one = template.sidecars.add(name=f"beside{number}", image=image)
            one.resources.reservations.memory = 2**22 if small else 0
            if chance.random() < 0.3:
                one.probes.readiness.http.port = "80"
                one.probes.readiness.interval = ASKED_EVERY_MS
    if chance.random() < 0.2:
        template.container.lifecycle.pre_stop.sleep = chance.choice([100, 3_000])
    if chance.random() < 0.2:
        template.container.lifecycle.post_start.sleep = chance.choice([100, 3_000])


def add_relations(chance: random.Random, name: str, spec: pb.ServiceSpec) -> None:
    """What the service waits for, for how long it is there, and how much of a node a companion may take."""
    if spec.template.sidecars and spec.mode != pb.SERVICE_MODE_GLOBAL and chance.random() < 0.5:
        # There are more nodes than services, but not while some are drained.
        spec.template.sidecars[0].resources.reservations.cpu = LARGE_CPU
        spec.replicas = min(spec.replicas, 1)
        spec.update.order = pb.UPDATE_ORDER_STOP_FIRST
    conditions = [pb.DEPENDENCY_CONDITION_READY, pb.DEPENDENCY_CONDITION_STARTED]
    others = {"web": ("api", "db"), "api": ("db",)}.get(name, ())
    for other in others:
        if chance.random() < 0.25:
            spec.depends_on[other] = chance.choice(conditions)
    if chance.random() < 0.05:
        spec.ttl = chance.choice([3_000, 20_000])


def waits_in_vain(service: pb.Service, others: Iterable[pb.Service]) -> bool:
    """Whether it depends on something that is not there, or will not be for long, or has to be near to it."""
    there: Mapping[str, pb.Service] = {one.meta.name: one for one in others}
    near = [one.service for one in service.spec.template.placement.near if not one.weight]
    for name in (*service.spec.depends_on, *near):
        other = there.get(name)
        if other is None or other.meta.deleted_at or other.spec.ttl or not other.spec.replicas:
            return True
    return False
