"""Carries out one step for one task: the only place where steps meet the world."""

import dataclasses
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, assert_never

from agent import metrics, networking, ports
from agent.core import actions, container, isolation, probes, restart, users
from agent.core.network import Attachment, published_ports, service_of
from agent.core.observed import Desired, Life, Observed, Sight, is_unwanted
from agent.core.record import Exit
from agent.errors import StartFailed, Temporary
from agent.lease import Lease
from protos import containers, families, states
from protos.orch.v1 import objects_pb2 as pb

SightT = TypeVar("SightT", bound=Sight)

CUT_OFF = "CutOff"
"""Why a fenced container is not started yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every task of an agent shares."""

    runtime: ports.Runtime
    prober: ports.Prober
    images: ports.Images
    disk: ports.Disk
    networking: networking.NodeNetworking
    names: ports.Names
    node: container.NodeContext
    labels: Callable[[], Mapping[str, str]]
    """Those that the node has now."""
    devices: ports.Devices
    users: users.IdPool
    lease: Lease
    now_ms: Callable[[], int]
    chance: random.Random
    assignment_saved: Callable[[], Awaitable[None]]
    """Returns once the assignment that the task came with is on disk: a container that an agent started and then
    does not find in its assignment would be removed as a stray."""


_OF_THE_NODE = frozenset({pb.IMAGE_PULL_POLICY_ALWAYS, pb.IMAGE_PULL_POLICY_NEVER})


class Executor:
    """Carries out the steps of one task. Holds nothing that cannot be made again."""

    def __init__(self, task: pb.Task, tools: Tools) -> None:
        self._task = task
        self._id = task.meta.id
        self._tools = tools
        self._images: dict[str, container.PreparedImage] = {}

    async def execute(self, step: actions.Step, observed: Observed, desired: Desired) -> Observed:
        """What there is after the step. Raises Temporary or Refused."""
        if isinstance(step, actions.ContainerStep):
            sight = await self._of_container(step, observed.of(step.container), observed, desired)
            return observed.with_one(step.container, sight)
        return await self._of_task(step, observed, desired)

    async def _of_task(  # noqa: C901 - one case a step
        self, step: actions.TaskStep, observed: Observed, desired: Desired
    ) -> Observed:
        record = observed.record
        match step:
            case actions.Enter():
                states.check(record.state, step.state, states.Owner.AGENT)
                entered = dataclasses.replace(
                    record, state=step.state, at=self._tools.now_ms(), message=step.message, reason=step.reason
                )
                return dataclasses.replace(observed, record=entered, failure=None)
            case actions.TakeUsers():
                wanted, no_users = desired.template.container, self._tools.node.machine.no_users
                chosen = isolation.choose_root(self._task, wanted, self._tools.users, no_users)
                return _with_record(observed, root_id=chosen)
            case actions.TakeAddress():
                given = self._tools.networking.reserve(self._id, published_ports(desired.template))
                await self._tools.disk.save_last_addresses(families.every(given))
                return _with_record(observed, address=given.address, address6=given.address6)
            case actions.AttachNetwork():
                return await self._attach(observed, desired)
            case actions.Leave():
                return _with_record(observed, leaving_since=self._tools.now_ms())
            case actions.Drain():
                return _with_record(observed, draining_since=self._tools.now_ms())
            case actions.DetachNetwork():
                await self._tools.networking.detach(self._attachment(observed, desired))
                return dataclasses.replace(_with_record(observed, address="", address6=""), network_ready=False)
            case actions.FreeUsers():
                self._tools.users.free(self._id)
                return _with_record(observed, root_id=None)
            case actions.RemoveVolumes():
                await self._tools.disk.remove_volumes(self._id)
                return dataclasses.replace(observed, volumes_gone=True)
            case actions.Forget():
                await self._tools.disk.forget(self._id)
                return observed
            case actions.Wait():
                raise AssertionError("waiting is the runner's own affair")
        assert_never(step)

    async def _of_container(
        self, step: actions.ContainerStep, sight: SightT, observed: Observed, desired: Desired
    ) -> SightT:
        """What there is of the step's container afterwards."""
        container_id = containers.identity(self._id, step.container)
        match step:
            case actions.PrepareImage():
                return await self._prepare_image(step, sight, desired)
            case actions.StartContainer():
                return await self._start(step, sight, observed, desired)
            case actions.NoteExit():
                return self._note_exit(step, sight, observed, desired)
            case actions.PrepareStop():
                return dataclasses.replace(sight, prepare_stop_at=self._tools.now_ms())
            case actions.Stop():
                await self._tools.runtime.signal(container_id, sight.record.stop_signal)
                return dataclasses.replace(sight, stop_asked_at=self._tools.now_ms())
            case actions.Kill():
                await self._tools.runtime.signal(container_id, "SIGKILL")
                return dataclasses.replace(sight, kill_asked_at=self._tools.now_ms())
            case actions.DeleteContainer():
                await self._tools.runtime.delete(container_id)
                return dataclasses.replace(sight, life=Life.NONE, exit=None, **_NOT_STOPPING)
        assert_never(step)

    async def _attach(self, observed: Observed, desired: Desired) -> Observed:
        await self._tools.networking.attach(self._attachment(observed, desired))
        return dataclasses.replace(observed, network_ready=True)

    def _attachment(self, observed: Observed, desired: Desired) -> Attachment:
        return Attachment(
            task_id=self._id,
            address=observed.record.address,
            address6=observed.record.address6,
            ports=published_ports(desired.template),
            root_id=observed.record.root_id or 0,
            service=service_of(self._task),
        )

    async def _prepare_image(self, step: actions.PrepareImage, sight: SightT, desired: Desired) -> SightT:
        """A restart has the image that it had; a first start the one that was settled, unless it is to ask anew, or to
        take what this node calls so.
        """
        policy = desired.container(step.container).image_pull_policy
        settled = "" if policy in _OF_THE_NODE else desired.images.get(step.reference, "")
        image = await self._tools.images.prepare(step.reference, sight.record.image_digest or settled, policy)
        self._images[step.container] = image
        return dataclasses.replace(_with_record(sight, image_digest=image.digest), image_ready=True)

    async def _start(self, step: actions.StartContainer, sight: SightT, observed: Observed, desired: Desired) -> SightT:
        """A start that fails counts as a container that ended: the restart policy decides what follows."""
        now_ms = self._tools.now_ms()
        record = restart.restarted(sight.record, now_ms=now_ms) if step.again else sight.record
        spec = desired.container(step.container)
        record = dataclasses.replace(
            record,
            stop_signal=container.stop_signal(spec, self._image_of(step)),
            ready=not (probes.decide_ready(spec.probes) or spec.lifecycle.HasField("post_start")),
            hooked=False,
            unhealthy="",
        )
        volumes = await self._tools.disk.make_volumes(self._id, (one.name for one in desired.template.volumes))
        request = self._request(step, observed, desired, volumes)
        await self._tools.assignment_saved()
        request = dataclasses.replace(request, until_s=self._until_s())
        try:
            with metrics.starting(again=step.again):
                started = await self._tools.runtime.start(request)
        except StartFailed as error:
            ended = Exit(code=error.exit_code, finished_at=now_ms, message=error.message)
            record = dataclasses.replace(record, started_at=now_ms)
            return dataclasses.replace(sight, record=record, life=Life.STOPPED, exit=ended)
        return dataclasses.replace(
            sight,
            record=dataclasses.replace(record, started_at=started.started_at),
            life=Life.RUNNING if started.exit is None else Life.STOPPED,
            exit=started.exit,
            not_ready="",
            **_NOT_STOPPING,
        )

    def _until_s(self) -> float:
        """When the container is to be dead. Raises Temporary when that is too soon for it to be started."""
        fence_ms, lease = self._task.fence, self._tools.lease
        if fence_ms and not lease.may_start(fence_ms):
            text = "its service is fenced, and no leader has answered this node lately"
            raise Temporary(text, reason=CUT_OFF)
        return lease.until_s(fence_ms) if fence_ms else 0

    def _image_of(self, step: actions.StartContainer) -> container.PreparedImage:
        assert step.container in self._images, "the image is prepared before the container is started"
        return self._images[step.container]

    def _request(
        self, step: actions.StartContainer, observed: Observed, desired: Desired, volumes: str
    ) -> container.ContainerRequest:
        spec = desired.container(step.container)
        return container.request(
            task=self._task,
            template=desired.template,
            name=step.container,
            image=self._image_of(step),
            node=dataclasses.replace(self._tools.node, labels=self._tools.labels()),
            address=observed.record.address,
            address6=observed.record.address6,
            resolving=self._tools.names.resolving(),
            network_namespace=self._tools.networking.namespace_of(self._id),
            user_namespace=self._tools.networking.users_of(self._id),
            root_id=observed.record.root_id or 0,
            devices=self._tools.devices.named_by(spec),
            volumes=volumes,
        )

    def _note_exit(self, step: actions.NoteExit, sight: SightT, observed: Observed, desired: Desired) -> SightT:
        sight = dataclasses.replace(sight, exit=None)
        if states.is_terminal(observed.record.state) or is_unwanted(desired):
            return _with_record(sight, exit=step.exit)
        now_ms, jitter = self._tools.now_ms(), self._tools.chance.random()
        policy = desired.template.restart
        if any(one.name == step.container for one in desired.template.sidecars):
            record = restart.after_sidecar_exit(sight.record, step.exit, now_ms=now_ms, jitter=jitter)
        elif step.container:
            record = restart.after_init_exit(sight.record, step.exit, policy, now_ms=now_ms, jitter=jitter)
        else:
            record = restart.after_exit(sight.record, step.exit, policy, now_ms=now_ms, jitter=jitter)
        return dataclasses.replace(sight, record=record)


_NOT_STOPPING: Mapping[str, Any] = {
    "prepare_stop_at": 0,
    "stop_prepared": False,
    "stop_asked_at": 0,
    "kill_asked_at": 0,
}


def _with_record(sight: SightT, **changes: object) -> SightT:
    return dataclasses.replace(sight, record=dataclasses.replace(sight.record, **changes))  # type: ignore[arg-type]
