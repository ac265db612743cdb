"""Carries out one step for one task: the only place where steps meet the world."""

import dataclasses
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import assert_never

from agent import networking, ports
from agent.core import container, probes, restart, steps, users
from agent.core.network import Attachment, published_ports, service_of
from agent.core.record import Exit
from agent.core.steps import Desired, Life, Observed
from agent.errors import StartFailed
from protos import families, states
from protos.orch.v1 import objects_pb2 as pb


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
    devices: ports.Devices
    users: users.IdPool
    now_ms: Callable[[], int]
    chance: random.Random
    assignment_saved: Callable[[], Awaitable[None]]
    """Returns once the assignment that the task came with is on disk: a container that an agent started and then
    does not find in its assignment would be removed as a stray."""


class Executor:
    """Carries out the steps of one task. Holds nothing that cannot be made again."""

    def __init__(self, task: pb.Task, tools: Tools) -> None:
        self._task = task
        self._id = task.meta.id
        self._tools = tools
        self._image: container.PreparedImage | None = None

    async def execute(  # noqa: C901 - one case a step
        self, step: steps.Step, observed: Observed, desired: Desired
    ) -> Observed:
        """What there is after the step. Raises Temporary or Refused."""
        record = observed.record
        match step:
            case steps.Enter():
                states.check(record.state, step.state, states.Owner.AGENT)
                entered = dataclasses.replace(
                    record, state=step.state, at=self._tools.now_ms(), message=step.message, reason=step.reason
                )
                return dataclasses.replace(observed, record=entered, failure=None)
            case steps.PrepareImage():
                return await self._prepare_image(step, observed)
            case steps.TakeUsers():
                tools = self._tools
                chosen = users.choose(self._task, desired.template.container, tools.users, tools.node.machine.no_users)
                return _with_record(observed, root_id=chosen)
            case steps.TakeAddress():
                given = self._tools.networking.reserve(self._id, published_ports(desired.template))
                await self._tools.disk.save_last_address(" ".join(families.every(given)))
                return _with_record(observed, address=given.address, address6=given.address6)
            case steps.AttachNetwork():
                return await self._attach(observed, desired)
            case steps.StartContainer():
                return await self._start(step, observed, desired)
            case steps.NoteExit():
                return self._note_exit(step.exit, observed, desired)
            case steps.Leave():
                return _with_record(observed, leaving_since=self._tools.now_ms())
            case steps.Drain():
                return _with_record(observed, draining_since=self._tools.now_ms())
            case steps.Stop():
                await self._tools.runtime.signal(self._id, record.stop_signal)
                return dataclasses.replace(observed, stop_asked_at=self._tools.now_ms())
            case steps.Kill():
                await self._tools.runtime.signal(self._id, "SIGKILL")
                return dataclasses.replace(observed, kill_asked_at=self._tools.now_ms())
            case steps.DeleteContainer():
                await self._tools.runtime.delete(self._id)
                return dataclasses.replace(observed, life=Life.NONE, exit=None, stop_asked_at=0, kill_asked_at=0)
            case steps.DetachNetwork():
                await self._tools.networking.detach(self._attachment(observed, desired))
                return dataclasses.replace(_with_record(observed, address="", address6=""), network_ready=False)
            case steps.FreeUsers():
                self._tools.users.free(self._id)
                return _with_record(observed, root_id=None)
            case steps.Forget():
                await self._tools.disk.forget(self._id)
                return observed
            case steps.Wait():
                raise AssertionError("waiting is the runner's own affair")
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

    async def _prepare_image(self, step: steps.PrepareImage, observed: Observed) -> Observed:
        self._image = await self._tools.images.prepare(step.reference, observed.record.image_digest)
        return dataclasses.replace(_with_record(observed, image_digest=self._image.digest), image_ready=True)

    async def _start(self, step: steps.StartContainer, observed: Observed, desired: Desired) -> Observed:
        """A start that fails counts as a container that ended: the restart policy decides what follows."""
        assert self._image is not None, "the image is prepared before the container is started"
        now_ms = self._tools.now_ms()
        record = restart.restarted(observed.record, now_ms=now_ms) if step.again else observed.record
        record = dataclasses.replace(
            record,
            stop_signal=container.stop_signal(desired.template, self._image),
            ready=not probes.decide_ready(desired.template.container.probes),
            unhealthy="",
        )
        request = container.request(
            task=self._task,
            template=desired.template,
            image=self._image,
            node=self._tools.node,
            address=record.address,
            address6=record.address6,
            resolving=self._tools.names.resolving(),
            network_namespace=self._tools.networking.namespace_of(self._id),
            user_namespace=self._tools.networking.users_of(self._id),
            root_id=record.root_id or 0,
            devices=self._tools.devices.named_by(desired.template.container),
        )
        await self._tools.assignment_saved()
        try:
            started = await self._tools.runtime.start(request)
        except StartFailed as error:
            ended = Exit(code=error.exit_code, finished_at=now_ms, message=error.message)
            record = dataclasses.replace(record, started_at=now_ms)
            return dataclasses.replace(observed, record=record, life=Life.STOPPED, exit=ended)
        return dataclasses.replace(
            observed,
            record=dataclasses.replace(record, started_at=started.started_at),
            life=Life.RUNNING if started.exit is None else Life.STOPPED,
            exit=started.exit,
            stop_asked_at=0,
            kill_asked_at=0,
            not_ready="",
        )

    def _note_exit(self, ended: Exit, observed: Observed, desired: Desired) -> Observed:
        observed = dataclasses.replace(observed, exit=None)
        if states.is_terminal(observed.record.state) or steps.is_unwanted(desired):
            return _with_record(observed, exit=ended)
        record = restart.after_exit(
            observed.record,
            ended,
            desired.template.restart,
            now_ms=self._tools.now_ms(),
            jitter=self._tools.chance.random(),
        )
        return dataclasses.replace(observed, record=record)


def _with_record(observed: Observed, **changes: object) -> Observed:
    return dataclasses.replace(observed, record=dataclasses.replace(observed.record, **changes))  # type: ignore[arg-type]
