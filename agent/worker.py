"""Keeps the containers of this node equal to what is assigned: one TaskRunner a task.

Two rules: what was assigned last is on disk before anything is started for it; and a start looks at everything that
is there (disk, runtime, network) and makes a runner for each, so that what is in no assignment goes the same way as
everything else: by steps.
"""

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence

import structlog

from agent import executor, ports
from agent.core import assignments, commit, imageroom
from agent.core.assignments import Assignments, Gap
from agent.core.container import NodeContext
from agent.core.network import Attachment, published_ports, service_of
from agent.core.observed import Desired, Life, Observed
from agent.core.record import Record
from agent.core.users import IdPool
from agent.errors import AgentError, NoSuchTask
from agent.executor import Tools
from agent.lease import Lease
from agent.networking import NodeNetworking
from agent.outbox import Outbox
from agent.runner import TaskRunner, found, stray
from protos import containers, families, states
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

log = structlog.get_logger()

CONCURRENT_STARTS = 8
EXTEND_TIMEOUT_S = 2.0
SAVE_RETRY_S = 1.0
SAVE_SERVICES_S = 2.0
"""What changes the network alone is written once in a while: it is told again with the next session, and no start waits
for it.
"""


class Worker:
    """`run` it in a task of its own; the session tells it what is assigned and takes reports from the outbox."""

    def __init__(
        self,
        *,
        runtime: ports.Runtime,
        prober: ports.Prober,
        images: ports.Images,
        network: ports.Network,
        names: ports.Names,
        disk: ports.Disk,
        devices: ports.Devices,
        users: IdPool,
        node: NodeContext,
        now_ms: Callable[[], int],
        chance: random.Random,
    ) -> None:
        self.outbox = Outbox()
        self.lease = Lease(runtime.clock_s)
        self._networking = NodeNetworking(network, names=names, now_ms=now_ms, chance=chance, on_ready=self._nudge)
        self._network = network
        self._names = names
        self._holders: dict[str, TaskRunner] = {}  # by address, as far as somebody has asked
        self._remembered: Mapping[str, pb.Task] = {}  # by address, until everything is restored
        self._tools = Tools(
            runtime=runtime,
            prober=prober,
            images=images,
            disk=disk,
            networking=self._networking,
            names=names,
            devices=devices,
            users=users,
            lease=self.lease,
            node=node,
            labels=lambda: self._assigned.labels,
            now_ms=now_ms,
            chance=chance,
            assignment_saved=self._assignment_saved,
        )
        self._slots = asyncio.Semaphore(CONCURRENT_STARTS)
        self._assigned = Assignments()
        self._version = self._saved_version = 0  # of what is assigned, and of what is on disk
        self._unsaved, self._urgent = asyncio.Event(), asyncio.Event()
        self._saved = asyncio.Condition()
        self._runners: dict[str, TaskRunner] = {}
        self._group: asyncio.TaskGroup | None = None
        self.restored = asyncio.Event()
        self.on_network: Callable[[], None] = lambda: None
        """Is told when the network is another, and with it perhaps who is a member."""

    async def run(self) -> None:
        """Restore what an earlier agent left, then live on. Ends only by being cancelled; containers live on."""
        await self._restore()
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._networking.run())
            self._group.create_task(self._save_assignments())
            self._group.create_task(self._extend_leases())
            for runner in list(self._runners.values()):
                self._group.create_task(self._live(runner))
            self.restored.set()

    def begin_session(self) -> None:
        """A session has begun: its first assignment is COMPLETE, and the leader is told everything."""
        self._assigned = assignments.of_new_session(self._assigned)
        self._networking.begin_session()
        self.outbox.begin(report for runner in self._runners.values() if (report := runner.report()) is not None)

    def assign(self, message: dpb.Assignment) -> Gap | None:
        """Take over an assignment; a Gap when it does not fit onto what is held."""
        assert self._group is not None, "the worker is restored before the session begins"
        after = assignments.apply(self._assigned, message)
        if isinstance(after, Gap):
            return after
        if after is self._assigned:
            return None
        before, self._assigned = self._assigned, after
        if _lasting(before) != _lasting(after):
            self._version += 1
            self._urgent.set()
        self._unsaved.set()
        self._networking.want(after)
        if before.network is not after.network:
            self.on_network()
        self._names.update(after.network, after.services, after.touched)
        for task_id, runner in self._runners.items():
            if task_id not in after.tasks and not runner.desired.gone:
                runner.want(dataclasses.replace(runner.desired, gone=True))
                self.outbox.drop(task_id)
        for task in assignments.changed_tasks(before, after):
            self._assign_task(task, self._group)
        self.lease.want(any(task.fence for task in after.tasks.values()))
        return None

    @property
    def sequence(self) -> int:
        """The number of the assignment that is held; 0 before the first one of a session."""
        return self._assigned.sequence or 0

    async def network_applied(self) -> int:
        """Wait until the network is as another assignment of this session says; returns the number of the last one."""
        return await self._networking.applied()

    def task(self, task_id: str) -> pb.Task:
        """The task of that id. Raises NoSuchTask."""
        if task_id not in self._runners:
            raise NoSuchTask(f"task {task_id} is not on this node")
        return self._runners[task_id].task

    def over(self, task_id: str) -> "asyncio.Future[None]":
        """Done when the task has ended for good. Raises NoSuchTask."""
        self.task(task_id)
        return self._runners[task_id].over

    def commit_source(self, task_id: str, container: str) -> commit.Source:
        """What a container stands on that was started, and perhaps has ended. Raises NoSuchTask."""
        self.task(task_id)
        runner, name = self._runners[task_id], "" if container == containers.MAIN else container
        sight, spec = runner.observed.of(name), runner.desired.container(name)
        if not sight.record.image_digest or not sight.record.started_at:
            raise NoSuchTask(f"{containers.identity(task_id, name)} has not been started yet")
        return commit.Source(
            image=sight.record.image_digest,
            places=commit.places(spec, self._tools.node.base),
            runs=sight.life is Life.RUNNING,
        )

    def task_at(self, address: str) -> pb.Task | None:
        """The task that has an address. What is kept for the next time is true or looked up again."""
        holder = self._holders.get(address)
        if holder is None or address not in families.every(holder.observed.record):
            self._holders = {
                held: runner for runner in self._runners.values() for held in families.every(runner.observed.record)
            }
            holder = self._holders.get(address)
        return holder.task if holder is not None else self._remembered.get(address)

    @property
    def observed(self) -> Mapping[str, Observed]:
        """What there is of each task."""
        return {task_id: runner.observed for task_id, runner in self._runners.items()}

    @property
    def running(self) -> Mapping[str, Sequence[str]]:
        """The containers that run, by their task."""
        found = {task_id: _running(task_id, runner.observed) for task_id, runner in self._runners.items()}
        return {task_id: members for task_id, members in found.items() if members}

    @property
    def network(self) -> dpb.NodeNetwork | None:
        """The network as the leader has told it last, with the other nodes; the same value until it tells another."""
        return self._assigned.network

    @property
    def services(self) -> Mapping[str, dpb.NetworkService]:
        """The services of the cluster by id, as the leader has told them last."""
        return self._assigned.services

    @property
    def images_needed(self) -> imageroom.Needed:
        """What tasks have or may start."""
        return imageroom.needed(self.observed.values(), self._assigned.revisions.values())

    def _assign_task(self, task: pb.Task, group: asyncio.TaskGroup) -> None:
        desired = _desired(task, self._assigned)
        runner = self._runners.get(task.meta.id)
        if runner is not None:
            runner.want(desired)
            return
        runner = self._add(task, desired, Observed(record=_first_record(task)))
        group.create_task(self._live(runner))

    def _add(self, task: pb.Task, desired: Desired, observed: Observed) -> TaskRunner:
        runner = TaskRunner(task, desired, observed, tools=self._tools, report=self.outbox.put, slots=self._slots)
        self._runners[task.meta.id] = runner
        return runner

    async def _live(self, runner: TaskRunner) -> None:
        await runner.run()
        del self._runners[runner.task.meta.id]
        task = self._assigned.tasks.get(runner.task.meta.id)
        if task is not None and task.desired_state < pb.DESIRED_STATE_REMOVE:
            # Taken from the node, and given to it again while it was being cleaned up.
            assert self._group is not None, "a runner lives in the worker's group"
            self._assign_task(task, self._group)

    async def _extend_leases(self) -> None:
        """With each answer of a leader the containers of fenced tasks may live longer, and others may be started."""
        while True:
            await self.lease.renewed.wait()
            self.lease.renewed.clear()
            fenced = {task_id: runner for task_id, runner in self._runners.items() if runner.task.fence}
            async with asyncio.TaskGroup() as group:
                for task_id, runner in fenced.items():
                    until_s = self.lease.until_s(runner.task.fence)
                    for name in _running(task_id, runner.observed):
                        group.create_task(self._extend(name, until_s))
            for runner in fenced.values():
                failure = runner.observed.failure
                if failure is not None and failure.reason == executor.CUT_OFF:
                    runner.nudge()

    async def _extend(self, container_id: str, until_s: float) -> None:
        """One that does not answer must not cost the others their lives."""
        try:
            async with asyncio.timeout(EXTEND_TIMEOUT_S):
                await self._tools.runtime.extend(container_id, until_s)
        except (AgentError, TimeoutError) as error:
            log.warning("a fenced container may be killed soon", container=container_id, why=str(error) or "no answer")

    def _nudge(self) -> None:
        for runner in self._runners.values():
            runner.nudge()

    async def _restore(self) -> None:
        memory = await self._tools.disk.load()
        self._assigned = assignments.from_saved(memory.assignment)
        self._names.update(self._assigned.network, self._assigned.services, self._assigned.touched)
        self._remembered = _by_address(memory.records, self._assigned)
        await self._names.resume()
        there = await self._tools.runtime.containers()
        attached = await self._network.attached()
        self._networking.want(self._assigned)
        self._networking.resume(memory.last_addresses)
        members: dict[str, dict[str, ports.ContainerState]] = {}
        for container_id, state in there.items():
            task_id, name = containers.split(container_id)
            members.setdefault(task_id, {})[name] = state
        for task_id in sorted({*self._assigned.tasks, *memory.records, *members, *attached}):
            record, own = memory.records.get(task_id), members.get(task_id, {})
            self._restore_task(task_id, record, own, attached=task_id in attached)
        self._remembered = {}
        if self._runners:
            log.info("restored", tasks=len(self._runners), containers=len(there))

    def _restore_task(
        self, task_id: str, record: Record | None, there: Mapping[str, ports.ContainerState], *, attached: bool
    ) -> None:
        task = self._assigned.tasks.get(task_id)
        if task is None:
            (task, desired), first = stray(task_id), Record()
        else:
            desired, first = _desired(task, self._assigned), _first_record(task)
        if record is not None:
            first = record  # how far the task has got here: that the leader gave it up meanwhile is in `desired`
        first = self._restore_users(task_id, first, there)
        observed = found(first, there, network_ready=attached)
        attachment = Attachment(
            task_id=task_id,
            address=observed.record.address,
            address6=observed.record.address6,
            ports=published_ports(desired.template),
            root_id=observed.record.root_id or 0,
            service=service_of(task),
        )
        self._networking.restore(attachment, attached=attached)
        self._add(task, desired, observed)

    def _restore_users(self, task_id: str, record: Record, there: Mapping[str, ports.ContainerState]) -> Record:
        """What a container has is known by itself, whatever became of its record; and nobody else gets it."""
        known = next((state.root_id for state in there.values()), None)
        root_id = known if known is not None and record.root_id is None else record.root_id
        if root_id and not self._tools.users.claim(root_id, task_id):
            log.error("two tasks have the same user ids; stop one of them", task=task_id, root_id=root_id)
        return dataclasses.replace(record, root_id=root_id)

    async def _assignment_saved(self) -> None:
        """Wait until what is assigned now is on disk, or something newer."""
        wanted = self._version
        async with self._saved:
            await self._saved.wait_for(lambda: self._saved_version >= wanted)

    async def _save_assignments(self) -> None:
        while True:
            await self._unsaved.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_SERVICES_S):
                    await self._urgent.wait()
            self._unsaved.clear()
            self._urgent.clear()
            version = self._version
            try:
                await self._tools.disk.save_assignment(assignments.to_saved(self._assigned))
            except AgentError as error:
                log.warning("the assignment was not saved", error=error.message)
                self._unsaved.set()
                self._urgent.set()
                await asyncio.sleep(SAVE_RETRY_S)
                continue
            async with self._saved:
                self._saved_version = version
                self._saved.notify_all()


def _running(task_id: str, observed: Observed) -> list[str]:
    return [containers.identity(task_id, name) for name, sight in observed.each if sight.life is Life.RUNNING]


def _by_address(records: Mapping[str, Record], assigned: Assignments) -> dict[str, pb.Task]:
    """Who may ask for names while containers are still looked at."""
    known = ((record, assigned.tasks.get(task_id)) for task_id, record in records.items())
    return {address: task for record, task in known if task is not None for address in families.every(record)}


def _desired(task: pb.Task, assigned: Assignments) -> Desired:
    return Desired(
        state=task.desired_state or pb.DESIRED_STATE_RUNNING,
        template=assigned.revisions[task.revision_id].template,
        lost=task.status.state == states.ORPHANED,
        withdrawn=task.meta.id in assigned.withdrawn,
        waits_for=task.waits_for,
        images=dict(assigned.revisions[task.revision_id].images),
    )


def _lasting(assigned: Assignments) -> tuple[object, ...]:
    """What an agent has to know again after its death, before it starts anything."""
    return assigned.tasks, assigned.revisions, assigned.network, assigned.labels


def _first_record(task: pb.Task) -> Record:
    """A task that this agent has no record of: it stands where the leader says that it stands."""
    return Record(state=max(task.status.state, states.ASSIGNED), at=task.status.at)
