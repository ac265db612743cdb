"""What people do to the cluster, drawn from the seed: apply, scale, delete, drain, through any instance that runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable

from controlplane.core import request_errors
from controlplane.store import errors
from protos import kinds, running
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import crowds, particulars, zones
from tests.sim.cluster import Cluster
from tests.sim.processes import IMAGES, MISSING_IMAGE, ControlPlane
from tests.sim.story import Story
from tests.support import fake_agent

SERVICES = ("api", "db", "web")
STACK = "shop"
ON_NODES = ("api", "db")
"""Those that sometimes take a port of their nodes."""
EVERYWHERE = "each"
"""The global one."""
FENCED = ("db", "web")
FENCE_MS = 10_000
"""Services that are fenced in runs with fences, and for how long their tasks live without a leader."""
FENCED_BESIDE_OTHERS = ("db",)
"""Those that are where people are particular: what is fenced is never doubled."""
PATIENCE_S = 10.0
ACTIONS = (
    api.ROLLOUT_ACTION_PAUSE,
    api.ROLLOUT_ACTION_RESUME,
    api.ROLLOUT_ACTION_RESUME,
    api.ROLLOUT_ACTION_PROMOTE,
    api.ROLLOUT_ACTION_ABORT,
    api.ROLLOUT_ACTION_ABORT,
    api.ROLLOUT_ACTION_UNDO,
    api.ROLLOUT_ACTION_RESTART,
    api.ROLLOUT_ACTION_STOP,
    api.ROLLOUT_ACTION_START,
    api.ROLLOUT_ACTION_START,
)
READINESS_PORT, LIVENESS_PORT = "80", "9"


class People:
    """Their wishes are ones that four healthy nodes can fulfil, also while every task is doubled; a wrong image is put
    right in the end.
    """

    def __init__(
        self,
        cluster: Cluster,
        chance: random.Random,
        story: Story,
        *,
        fenced: Collection[str] = (),
        particular: bool = False,
    ) -> None:
        self._cluster = cluster
        self._chance = chance
        self._story = story
        self._fenced = fenced
        self._particular = particular
        self._jobs = (particulars.JOB,) if particular else ()
        self._services = (*SERVICES, *self._jobs)

    def wishes(self) -> list[Callable[[], Awaitable[None]]]:
        """What a person may do next; what stands here twice is done twice as often."""
        often = [self._apply, self._apply, self._apply, self._scale, self._delete, self._set_availability]
        rarely = [self._apply_apart, self._taint, self._apply_stack, self._label, self._delete_all]
        return [*often, self._roll, self._roll, self._drain, self._rebalance, *rarely]

    async def _apply(self) -> None:
        name = self._chance.choice([*self._services, *self._services, EVERYWHERE])
        spec = self._spec(name)
        if self._chance.random() < 0.15:
            await self.roll(name, api.ROLLOUT_ACTION_PAUSE)
        if self._chance.random() < 0.25:
            await self._push(self._chance.choice(IMAGES))
        await self.apply(name, spec)

    def chosen(self, count: int) -> list[str]:
        """So many services, and again; the one that others wait for first."""
        return [particulars.JOB, *self._chance.choices([*self._services, EVERYWHERE], k=count - 1)]

    async def update(self, name: str) -> bool:
        """Whether the cluster took it. Some tasks are there to be updated."""
        spec = self._spec(name)
        if name != EVERYWHERE:
            spec.replicas = spec.replicas or 2
        return await self.apply(name, spec)

    async def update_otherwise(self, service: pb.Service) -> bool:
        """In the middle of it people want it done in another way. Whether the cluster took that."""
        spec, name = pb.ServiceSpec(), service.meta.name
        spec.CopyFrom(service.spec)
        if spec.update.order != pb.UPDATE_ORDER_STOP_FIRST:
            spec.update.order = self._chance.choice([pb.UPDATE_ORDER_UNSPECIFIED, pb.UPDATE_ORDER_STOP_FIRST])
        spec.update.ClearField("max_surge")
        spec.update.ClearField("max_unavailable")
        spec.update.parallelism = self._chance.choice([1, 2])
        particulars.add_way(self._chance, spec, may_surge=name not in ON_NODES)
        return await self.apply(name, spec)

    async def _push(self, name: str) -> None:
        """The name comes to mean another image: for whoever is applied from now on, and for nobody else."""
        digest = fake_agent.digest(1_000 + next(self._cluster.ids))
        image = pb.Image(meta=pb.Meta(name=name), status=pb.ImageStatus(digest=digest, size=1, layers=1))
        await self._ask(f"push {name}", lambda plane: plane.writes.put_images([image]))

    def _spec(self, name: str) -> pb.ServiceSpec:
        spec = self._spec_of_every_seed(name)
        if name == particulars.JOB:
            particulars.make_job(self._chance, spec, MISSING_IMAGE)
        if self._particular:
            particulars.add(self._chance, name, spec, may_surge=name not in ON_NODES)
        return spec

    def _spec_of_every_seed(self, name: str) -> pb.ServiceSpec:
        reservations = pb.ResourceReservations(memory=self._chance.choice([0, 2**26, 2**27]), cpu=100)
        resources = pb.Resources(reservations=reservations)
        images = [*IMAGES, *IMAGES, *IMAGES, MISSING_IMAGE]
        container = pb.Container(image=self._chance.choice(images), resources=resources)
        if container.image == MISSING_IMAGE:
            container.image_pull_policy = pb.IMAGE_PULL_POLICY_NEVER  # else the apply is refused
        spec = pb.ServiceSpec(template=pb.TaskTemplate(container=container), replicas=self._chance.randint(0, 5))
        self._add_update(spec.update)
        self._add_disruption(spec.disruption)
        spec.rebalance.mode = self._chance.choice([0, 0, pb.REBALANCE_MODE_ON, pb.REBALANCE_MODE_OFF])
        if name == EVERYWHERE:
            spec.mode = pb.SERVICE_MODE_GLOBAL
            spec.ClearField("replicas")
            resources.reservations.memory = 0  # no node is to be too full for it
            spec.template.container.resources.CopyFrom(resources)
        elif name in ON_NODES:
            # Four nodes have room for three of each, one after the other; also when it goes back to a port of nodes.
            spec.replicas = min(spec.replicas, 3)
            if spec.update.order == pb.UPDATE_ORDER_START_FIRST:
                spec.update.order = pb.UPDATE_ORDER_UNSPECIFIED
            mode = pb.PUBLISH_MODE_HOST if self._chance.random() < 0.5 else pb.PUBLISH_MODE_UNSPECIFIED
            published = 8000 + SERVICES.index(name) if mode else 0
            spec.template.container.ports.add(target=80, published=published, mode=mode)
        else:
            published = 9000 if name == "web" else 0
            spec.template.container.ports.add(target=80, published=published)
        self._add_probes(spec.template.container)
        if self._chance.random() < 0.5:
            spec.template.restart.attempts = self._chance.randint(0, 2)
        if self._chance.random() < 0.3:
            spec.on_node_loss.replace_after = self._chance.choice([1, 1_000, 10_000])
        if name != EVERYWHERE:
            self._add_wishes(spec)
        elif self._chance.random() < 0.3:
            spec.template.placement.constraints.append(zones.ONLY_B)
        crowds.add_around(self._chance, spec.template)
        crowds.add_relations(self._chance, name, spec)
        return spec

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

    def _add_disruption(self, disruption: pb.DisruptionPolicy) -> None:
        """What cannot be kept for ever is not asked for: with `minAvailable: 1` of one, nothing leaves a full node."""
        match self._chance.randint(0, 3):
            case 0:
                disruption.max_unavailable = self._chance.choice(["1", "2", "50%"])
            case 1:
                disruption.min_available = self._chance.choice(["1", "2", "50%"])
            case _:
                pass

    def _add_update(self, update: pb.UpdatePolicy) -> None:
        """Every way in which a new revision can go in."""
        if self._chance.random() < 0.5:
            update.parallelism = self._chance.choice([0, 1, 2])
        update.order = self._chance.choice([0, 0, pb.UPDATE_ORDER_START_FIRST, pb.UPDATE_ORDER_STOP_FIRST])
        update.on_failure = self._chance.choice(
            [pb.UPDATE_FAILURE_ACTION_PAUSE, pb.UPDATE_FAILURE_ACTION_ROLLBACK, pb.UPDATE_FAILURE_ACTION_CONTINUE]
        )
        update.monitor = self._chance.choice([1, 5_000])
        update.canary = self._chance.choice([0, 0, 0, 1])
        update.delay = self._chance.choice([0, 0, 3_000])
        update.max_failure_ratio = self._chance.choice(["", "0.5"])
        update.progress_deadline = self._chance.choice([10_000, 60_000])

    async def _roll(self) -> None:
        """Anything that can be asked of a rollout; most of it makes no sense at most times, and is refused."""
        name = self._chance.choice([*self._services, EVERYWHERE])
        await self.roll(name, self._chance.choice(ACTIONS))

    async def roll(self, name: str, action: api.RolloutAction.ValueType) -> bool:
        """Whether the cluster took it."""
        reference = api.ObjectReference(kind="service", namespace="default", name=name)
        request = api.RolloutRequest(reference=reference, action=action)
        what = f"{api.RolloutAction.Name(action).removeprefix('ROLLOUT_ACTION_').lower()} {name}"
        return await self._ask(what, lambda plane: plane.writes.rollout(request))

    async def let_go_on(self, service: pb.Service) -> None:
        """What waits for a word gets it: at rest every service is to be what its spec says."""
        name, state = service.meta.name, service.status.rollout.state
        if service.spec.stopped:
            await self.roll(name, api.ROLLOUT_ACTION_START)
        elif service.spec.rollout.paused or state == pb.ROLLOUT_STATE_PAUSED:
            await self.roll(name, api.ROLLOUT_ACTION_RESUME)
        elif state == pb.ROLLOUT_STATE_WAITING:
            await self.roll(name, api.ROLLOUT_ACTION_PROMOTE)
        elif state == pb.ROLLOUT_STATE_ROLLED_BACK:
            await self.roll(name, api.ROLLOUT_ACTION_UNDO)

    def _add_wishes(self, spec: pb.ServiceSpec) -> None:
        """Where its tasks are to run. What has to be is so little that four nodes can do it, whatever else they run."""
        wishes, reserved = spec.template.placement, spec.template.container.resources.reservations
        spec.priority = self._chance.choice([0, 0, -1, 5])
        match self._chance.randint(0, 7):
            case 0:
                wishes.constraints.append(zones.ONLY_B if not _on_the_host(spec) else "node.name != n9")
                spec.replicas = min(spec.replicas, 3)
            case 1:
                wishes.spread.add(by=zones.BY, max_skew=self._chance.choice([0, 1, 2]))
                # Two of them fit on a node: enough on four nodes for the six that three services may have.
                reserved.pids, reserved.disk = 900, 500 * 2**20
                spec.replicas = min(spec.replicas, 2)
            case 2:
                spec.template.placement.apart.add(service=self._chance.choice(SERVICES), weight=5)
                wishes.near.add(service=self._chance.choice(SERVICES), by=zones.BY, weight=2)
            case 3 | 6 | 7:
                # Three services, four cards: not enough, until everybody has to be content with one.
                reserved.generic["gpu"], reserved.pids, reserved.disk = 1, 100, 2**20
                spec.replicas = min(spec.replicas, 3)
            case 4:
                wishes.max_per_node = 2
                wishes.preferences.add(expression=f"{zones.BY} == a", weight=3)
            case _:
                pass
        if self._chance.random() < 0.2:
            wishes.tolerations.add(key="spare")

    async def _apply_apart(self) -> None:
        """A service whose replicas have to be on nodes of their own. While one is doubled that takes every node."""
        name = self._chance.choice(SERVICES)
        if self._particular and name == particulars.STRANGER:
            return
        spec = pb.ServiceSpec(replicas=3, template=pb.TaskTemplate(container=pb.Container(image=IMAGES[0])))
        spec.template.placement.apart.add(service=name)
        spec.template.placement.spread.add(by=zones.BY, max_skew=1)
        await self.apply(name, spec)

    def _with_fence(self, name: str, spec: pb.ServiceSpec) -> pb.ServiceSpec:
        """From its first task on, since a fence holds for tasks that are made after it was asked for."""
        if name in self._fenced:
            spec.on_node_loss.fence, spec.on_node_loss.replace_after = True, FENCE_MS
            if not spec.update.max_unavailable:
                spec.update.order = pb.UPDATE_ORDER_STOP_FIRST
        return spec

    async def apply(self, name: str, spec: pb.ServiceSpec) -> bool:
        """Whether the cluster took it."""
        service = pb.Service(meta=pb.Meta(name=name, namespace="default"), spec=self._with_fence(name, spec))
        request = api.ApplyRequest(objects=[kinds.wrap(service)])
        what = f"apply {name}: {spec.replicas} of {spec.template.container.image}"
        return await self._ask(what, lambda plane: plane.writes.apply(request))

    async def _apply_stack(self) -> None:
        """One or two services as a stack; what else is in it goes, once that was looked at."""
        names = self._chance.sample(SERVICES, self._chance.randint(1, 2))
        metas = [pb.Meta(name=name, namespace="default") for name in names]
        objects = [
            kinds.wrap(pb.Service(meta=meta, spec=self._with_fence(meta.name, self._spec(meta.name)))) for meta in metas
        ]
        request = api.ApplyRequest(objects=objects, stack=STACK, prune=True)

        async def look_and_apply(plane: ControlPlane) -> None:
            look = await plane.writes.apply(api.ApplyRequest(objects=objects, stack=STACK, prune=True, dry_run=True))
            doomed = [one.object.service for one in look.results if one.action == api.APPLY_ACTION_PRUNED]
            request.agreed.extend(one.meta.id for one in doomed)
            await plane.writes.apply(request)

        await self._ask(f"apply stack {STACK}: {', '.join(names)}", look_and_apply)

    async def _label(self) -> None:
        reference = api.ObjectReference(kind="service", namespace="default", name=self._chance.choice(self._services))
        request = api.UpdateMetaRequest(reference=reference, overwrite=True)
        request.set_labels["mood"] = self._chance.choice(["good", "bad"])
        await self._ask(f"label {reference.name}", lambda plane: plane.writes.update_meta(request))

    async def activate(self, node: str) -> bool:
        """Whether the cluster took it."""
        return await self._set(node, pb.AVAILABILITY_ACTIVE)

    async def _scale(self) -> None:
        reference = api.ObjectReference(kind="service", namespace="default", name=self._chance.choice(SERVICES))
        request = api.ScaleRequest(reference=reference, replicas=self._chance.randint(0, 3))
        await self._ask(f"scale {reference.name} to {request.replicas}", lambda plane: plane.writes.scale(request))

    async def _delete(self) -> None:
        await self._delete_one(self._chance.choice(self._services))

    async def _delete_all(self) -> None:
        """Those that depend on others first, as `orchctl delete -f` does."""
        if self._chance.random() < 0.3:
            for name in ("web", "api", "db", *self._jobs):
                await self._delete_one(name)

    async def _delete_one(self, name: str) -> None:
        reference = api.ObjectReference(kind="service", namespace="default", name=name)
        request = api.DeleteRequest(reference=reference)
        await self._ask(f"delete {reference.name}", lambda plane: plane.writes.delete(request))

    async def _set_availability(self) -> None:
        choices = [pb.AVAILABILITY_ACTIVE, pb.AVAILABILITY_DRAIN, pb.AVAILABILITY_PAUSE]
        await self._set("n4", self._chance.choice(choices))

    async def _rebalance(self) -> None:
        request = api.RebalanceRequest(dry_run=self._chance.random() < 0.3)
        await self._ask("rebalance", lambda plane: plane.writes.rebalance(request))

    async def _drain(self) -> None:
        """With or without a deadline; what is drained is made active again by somebody at some time."""
        await self.drain("n4", self._chance.choice([None, None, 0, 5_000, 20_000]))

    async def drain(self, node: str, deadline_ms: int | None) -> bool:
        """Whether the cluster took it."""
        request = api.UpdateNodeRequest(node=node, availability=pb.AVAILABILITY_DRAIN, deadline_ms=deadline_ms)
        return await self._ask(f"drain {node} within {deadline_ms}", lambda plane: plane.writes.update_node(request))

    async def give_up(self, node: str) -> bool:
        """Whether the cluster took it. They may be wrong: the machine may only be cut off."""
        request = api.UpdateNodeRequest(node=node, lost=True)
        return await self._ask(f"{node} is lost for good", lambda plane: plane.writes.update_node(request))

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


def too_greedy(service: pb.Service, before: Iterable[pb.TaskTemplate]) -> bool:
    """It was scaled to more than there is for everybody: cards, nodes that a task takes half of (see `crowds`), or ones
    that it does not share with another service. `before`: what it may go back to, with as many replicas.
    """
    template = service.spec.template
    large = any(one.resources.reservations.cpu >= crowds.LARGE_CPU for one in template.sidecars)
    alone = any(particulars.strangers(one, service.meta.name) for one in (template, *before))
    return service.spec.replicas > 1 and (large or alone or bool(template.container.resources.reservations.generic))


def _on_the_host(spec: pb.ServiceSpec) -> bool:
    """Each of its tasks needs a node of its own."""
    return any(port.mode == pb.PUBLISH_MODE_HOST for port in spec.template.container.ports)
