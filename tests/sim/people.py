"""What people do to the cluster, drawn from the seed: apply, scale, delete, drain, through any instance that runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from controlplane.core import request_errors
from controlplane.store import errors
from protos import kinds, running
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.cluster import Cluster
from tests.sim.processes import IMAGES, MISSING_IMAGE, ControlPlane
from tests.sim.story import Story

SERVICES = ("api", "db", "web")
PATIENCE_S = 10.0
READINESS_PORT, LIVENESS_PORT = "80", "9"


class People:
    """Their wishes are ones that four healthy nodes can fulfil; a wrong image is put right in the end."""

    def __init__(self, cluster: Cluster, chance: random.Random, story: Story) -> None:
        self._cluster = cluster
        self._chance = chance
        self._story = story

    def wishes(self) -> list[Callable[[], Awaitable[None]]]:
        """What a person may do next; what stands here twice is done twice as often."""
        return [
            self._apply,
            self._apply,
            self._apply_apart,
            self._scale,
            self._delete,
            self._set_availability,
            self._taint,
        ]

    async def _apply(self) -> None:
        name = self._chance.choice(SERVICES)
        reservations = pb.ResourceReservations(memory=self._chance.choice([0, 2**26, 2**27]), cpu=100)
        resources = pb.Resources(reservations=reservations)
        images = [*IMAGES, *IMAGES, *IMAGES, MISSING_IMAGE]
        container = pb.Container(image=self._chance.choice(images), resources=resources)
        spec = pb.ServiceSpec(template=pb.TaskTemplate(container=container), replicas=self._chance.randint(0, 5))
        if self._chance.random() < 0.3:
            published = 8000 + SERVICES.index(name)
            spec.template.container.ports.add(target=80, published=published, mode=pb.PUBLISH_MODE_HOST)
            spec.replicas = min(spec.replicas, 3)
        else:
            published = 9000 if name == "web" else 0
            spec.template.container.ports.add(target=80, published=published)
        self._add_probes(spec.template.container)
        if self._chance.random() < 0.5:
            spec.template.restart.attempts = self._chance.randint(0, 2)
        if self._chance.random() < 0.3:
            spec.on_node_loss.replace_after = self._chance.choice([1, 1_000, 10_000])
        self._add_wishes(spec)
        await self.apply(name, spec)

    def _add_probes(self, container: pb.Container) -> None:
        """Ports alone make tasks drain; the questions are told from each other by their port."""
        if self._chance.random() < 0.3:
            container.ports.add(name="web", target=81)
        if self._chance.random() < 0.4:
            container.probes.readiness.http.port = READINESS_PORT
            container.probes.readiness.interval = self._chance.choice([500, 2_000])
        if self._chance.random() < 0.3:
            container.probes.liveness.http.port = LIVENESS_PORT
            container.probes.liveness.interval = 1_000

    def _add_wishes(self, spec: pb.ServiceSpec) -> None:
        """Where its tasks are to run. What has to be is so little that four nodes can do it, whatever else they run."""
        wishes, reserved = spec.template.placement, spec.template.container.resources.reservations
        spec.priority = self._chance.choice([0, 0, -1, 5])
        match self._chance.randint(0, 7):
            case 0:
                wishes.constraints.append("node.labels.zone == b" if not _on_the_host(spec) else "node.name != n9")
                spec.replicas = min(spec.replicas, 3)
            case 1:
                wishes.spread.add(by="node.labels.zone", max_skew=self._chance.choice([0, 1, 2]))
            case 2:
                spec.template.placement.apart.add(service=self._chance.choice(SERVICES), weight=5)
                wishes.near.add(service=self._chance.choice(SERVICES), by="node.labels.zone", weight=2)
            case 3 | 6 | 7:
                # Three services, four cards: not enough, until everybody has to be content with one.
                reserved.generic["gpu"], reserved.pids, reserved.disk = 1, 100, 2**20
                spec.replicas = min(spec.replicas, 3)
            case 4:
                wishes.max_per_node = 2
                wishes.preferences.add(expression="node.labels.zone == a", weight=3)
            case _:
                pass
        if self._chance.random() < 0.2:
            wishes.tolerations.add(key="spare")

    async def _apply_apart(self) -> None:
        """A service whose replicas have to be on nodes of their own."""
        name = self._chance.choice(SERVICES)
        spec = pb.ServiceSpec(replicas=3, template=pb.TaskTemplate(container=pb.Container(image=IMAGES[0])))
        spec.template.placement.apart.add(service=name)
        spec.template.placement.spread.add(by="node.labels.zone", max_skew=1)
        await self.apply(name, spec)

    async def apply(self, name: str, spec: pb.ServiceSpec) -> bool:
        """Whether the cluster took it."""
        service = pb.Service(meta=pb.Meta(name=name, namespace="default"), spec=spec)
        request = api.ApplyRequest(objects=[kinds.wrap(service)])
        what = f"apply {name}: {spec.replicas} of {spec.template.container.image}"
        return await self._ask(what, lambda plane: plane.writes.apply(request))

    async def activate(self, node: str) -> bool:
        """Whether the cluster took it."""
        return await self._set(node, pb.AVAILABILITY_ACTIVE)

    async def _scale(self) -> None:
        reference = api.ObjectReference(kind="service", namespace="default", name=self._chance.choice(SERVICES))
        request = api.ScaleRequest(reference=reference, replicas=self._chance.randint(0, 3))
        await self._ask(f"scale {reference.name} to {request.replicas}", lambda plane: plane.writes.scale(request))

    async def _delete(self) -> None:
        reference = api.ObjectReference(kind="service", namespace="default", name=self._chance.choice(SERVICES))
        request = api.DeleteRequest(reference=reference)
        await self._ask(f"delete {reference.name}", lambda plane: plane.writes.delete(request))

    async def _set_availability(self) -> None:
        choices = [pb.AVAILABILITY_ACTIVE, pb.AVAILABILITY_DRAIN, pb.AVAILABILITY_PAUSE]
        await self._set("n4", self._chance.choice(choices))

    async def _taint(self) -> None:
        effect = self._chance.choice([1, 2, 3])
        taint = pb.Taint(key="spare", effect=effect)  # type: ignore[arg-type]  # its number
        request = api.UpdateNodeRequest(node="n4", set_taints=[taint])
        if self._chance.random() < 0.5:
            request = api.UpdateNodeRequest(node="n4", remove_taints=["spare"])
        await self._ask(f"taint n4: {request}".replace("\n", " "), lambda plane: plane.writes.update_node(request))

    async def _set(self, node: str, availability: pb.Availability.ValueType) -> bool:
        request = api.UpdateNodeRequest(node=node, availability=availability)
        if availability == pb.AVAILABILITY_ACTIVE:
            request.remove_taints.append("spare")
        word = pb.Availability.Name(availability)
        return await self._ask(f"set {node} to {word}", lambda plane: plane.writes.update_node(request))

    async def _ask(self, what: str, call: Callable[[ControlPlane], Awaitable[object]]) -> bool:
        planes = self._cluster.awake_control_planes()
        if not planes:
            return False
        self._story.say(f"person: {what}")
        plane = self._cluster.control_planes[self._chance.choice(planes)]
        # In a task of its own, as every request is that comes in: one that fails leaves nothing behind.
        return await self._cluster.group.create_task(self._request(what, call(plane)))

    async def _request(self, what: str, request: Awaitable[object]) -> bool:
        taken = False
        try:
            async with asyncio.timeout(PATIENCE_S):
                await request
            taken = True
        except* (request_errors.RequestError, errors.StoreError, TimeoutError) as refusals:
            self._story.say(f"person: {what} was refused: {running.leaf(refusals)}")
        return taken


def too_greedy(service: pb.Service) -> bool:
    """It wants more cards than there are for everybody."""
    return service.spec.replicas > 1 and bool(service.spec.template.container.resources.reservations.generic)


def _on_the_host(spec: pb.ServiceSpec) -> bool:
    """Each of its tasks needs a node of its own."""
    return any(port.mode == pb.PUBLISH_MODE_HOST for port in spec.template.container.ports)
