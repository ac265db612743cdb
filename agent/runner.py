"""One task's life on this node: ask for the next step, carry it out, write down and report what came of it, repeat.

Two rules: everything that happens elsewhere (a change of what is wanted, an exit) is only noted by those who see it
and taken over at the top of the loop; and what is reported has been written to disk before.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping

import structlog

from agent import metrics, ports
from agent.care import Care
from agent.core import actions, retry, status, steps
from agent.core.observed import Desired, Failure, Life, Observed, Sight, is_unwanted
from agent.core.record import ContainerRecord, Exit, Record
from agent.errors import AgentError, Refused, Temporary
from agent.executor import Executor, Tools
from protos import states
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

log = structlog.get_logger()


class TaskRunner:
    """One task. `run` returns once it is forgotten."""

    def __init__(
        self,
        task: pb.Task,
        desired: Desired,
        observed: Observed,
        *,
        tools: Tools,
        report: Callable[[dpb.TaskReport], None],
        slots: asyncio.Semaphore,
    ) -> None:
        self.task = task
        self.desired = desired
        self.observed = observed
        self._executor = Executor(task, tools)
        self._tools = tools
        self._report_to = report
        self._slots = slots
        self._wake = asyncio.Event()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the task has ended for good: nothing of it runs or will run."""
        self._cares: dict[str, Care] = {}
        """By the names of the containers; the main one's is empty."""
        self._interruptible: asyncio.Timeout | None = None
        self._written: Record | None = None
        self._reported: pb.TaskStatus | None = None

    def want(self, desired: Desired) -> None:
        """What is wanted has changed."""
        if desired == self.desired:
            return
        self.desired = desired
        self._forgive()
        waiting = self._interruptible
        if is_unwanted(desired) and waiting is not None and not waiting.expired():
            waiting.reschedule(asyncio.get_running_loop().time())

    def nudge(self) -> None:
        """Something that the task may have waited for has come: try again now."""
        self._forgive()

    def report(self) -> dpb.TaskReport | None:
        """What the leader should know now; None when it does not want to."""
        if self.desired.gone or self.desired.lost:
            return None
        current = status.status_of(self.observed, self.desired)
        return dpb.TaskReport(task_id=self.task.meta.id, namespace=self.task.meta.namespace, status=current)

    async def run(self) -> None:
        """Live. Ends when there is nothing left of the task, or by being cancelled: then the container lives on."""
        try:
            await self._live()
        finally:
            if not self.over.done():
                self.over.set_result(None)

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name, sight in self.observed.each:
                if sight.life is Life.RUNNING:
                    self._care(name).watch(group, fresh=False)
            while True:
                self._take_over()
                for care in self._cares.values():
                    care.attend(group, self.observed, self.desired)
                await self._write()
                self._say()
                step = steps.next_step(self.observed, self.desired, self._tools.now_ms())
                if isinstance(step, actions.Wait):
                    await self._sleep(step)
                    continue
                await self._carry_out(step)
                if isinstance(step, actions.Forget) and self.observed.failure is None:
                    return
                if isinstance(step, actions.StartContainer) and self.observed.of(step.container).life is Life.RUNNING:
                    self._care(step.container).watch(group, fresh=True)

    def _care(self, name: str) -> Care:
        if name not in self._cares:
            self._cares[name] = Care(self.task.meta.id, name, tools=self._tools, wake=self._wake.set)
        return self._cares[name]

    def _take_over(self) -> None:
        for name, care in self._cares.items():
            sight = self.observed.of(name)
            heard = care.take_over(sight)
            if heard is not sight:
                self.observed = self.observed.with_one(name, heard)
        if self.observed.record.leaving_since and not is_unwanted(self.desired):
            # Taken from the node, and given to it again.
            record = dataclasses.replace(self.observed.record, leaving_since=0, draining_since=0)
            self.observed = dataclasses.replace(self.observed, record=record)

    async def _carry_out(self, step: actions.Step) -> None:
        """The step, and what becomes of its failure."""
        log.debug("step", task=self.task.meta.id, step=step.describe())
        if isinstance(step, actions.DeleteContainer) and step.container in self._cares:
            self._cares[step.container].forget()
        before = self.observed.failure
        try:
            self.observed = await self._bounded(step)
        except Refused as error:
            self._fail(step, retry.final(reason=error.reason, message=error.message))
        except AgentError as error:
            self._fail_for_now(step, before, error)
        except Exception:  # one task's trouble must not end the others
            log.exception("a step failed in an unexpected way", task=self.task.meta.id, step=step.describe())
            self._fail_for_now(step, before, Temporary(f"the agent failed to {step.describe()}: see its log"))
        else:
            if self.observed.failure is not None and not self.observed.failure.final:
                self.observed = dataclasses.replace(self.observed, failure=None)

    async def _bounded(self, step: actions.Step) -> Observed:
        """Only so many at once do the heavy steps; and an image is not waited for when nobody wants the task."""
        match step:
            case actions.PrepareImage():
                return await self._interruptibly(step)
            case actions.StartContainer() | actions.AttachNetwork():
                async with self._slots:
                    return await self._executor.execute(step, self.observed, self.desired)
            case _:
                return await self._executor.execute(step, self.observed, self.desired)

    async def _interruptibly(self, step: actions.Step) -> Observed:
        try:
            async with asyncio.timeout(None) as self._interruptible:
                return await self._executor.execute(step, self.observed, self.desired)
        except TimeoutError:
            return self.observed
        finally:
            self._interruptible = None

    def _fail_for_now(self, step: actions.Step, before: Failure | None, error: AgentError) -> None:
        failure = retry.temporary(
            before,
            reason=error.reason,
            message=error.message,
            now_ms=self._tools.now_ms(),
            jitter=self._tools.chance.random(),
        )
        preparing = isinstance(
            step, actions.PrepareImage | actions.TakeUsers | actions.TakeAddress | actions.AttachNetwork
        )
        if preparing and failure.attempts >= retry.PREPARE_ATTEMPTS:
            failure = retry.final(reason=error.reason, message=error.message)
        self._fail(step, failure)

    def _fail(self, step: actions.Step, failure: Failure) -> None:
        metrics.STEPS_FAILED.labels(type(step).__name__).inc()
        log.warning("step failed", task=self.task.meta.id, step=step.describe(), error=failure.message)
        self.observed = dataclasses.replace(self.observed, failure=failure)

    def _forgive(self) -> None:
        """A failure that waits for its time need not wait any longer."""
        if self.observed.failure is not None and not self.observed.failure.final:
            self.observed = dataclasses.replace(self.observed, failure=None)
        self._wake.set()

    async def _sleep(self, step: actions.Wait) -> None:
        delay_s = max(0, step.until - self._tools.now_ms()) / 1000 if step.until else None
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _write(self) -> None:
        memory = self.observed.memory
        if memory == self._written or self.desired.gone:
            return
        try:
            await self._tools.disk.save_record(self.task.meta.id, memory)
        except AgentError as error:
            # The task goes on without it: what is lost is what another agent would have known after this one's death.
            log.warning("the record was not written", task=self.task.meta.id, error=error.message)
        else:
            self._written = memory

    def _say(self) -> None:
        if states.is_terminal(self.observed.record.state) and not self.over.done():
            self.over.set_result(None)
        report = self.report()
        if report is not None and report.status != self._reported:
            self._reported = report.status
            self._report_to(report)


def stray(task_id: str) -> tuple[pb.Task, Desired]:
    """What to make a runner of for something that is on the node and in no assignment: it is stopped and removed."""
    task = pb.Task(meta=pb.Meta(id=task_id, name=task_id))
    template = pb.TaskTemplate(stop_grace_period=10_000)
    desired = Desired(state=pb.DESIRED_STATE_REMOVE, template=template, gone=True)
    return task, desired


def found(record: Record, there: Mapping[str, ports.ContainerState], *, network_ready: bool) -> Observed:
    """What there is of a task that an earlier agent has left: what it noted, and the containers by their names."""
    others = {
        name: _sight(record.others.get(name, ContainerRecord()), there.get(name))
        for name in sorted(name for name in {*record.others, *there} if name)
    }
    own, main = dataclasses.replace(record, others={}), there.get("")
    return Observed(record=own, life=life_of(main), exit=_news(own, main), others=others, network_ready=network_ready)


def _sight(record: ContainerRecord, state: ports.ContainerState | None) -> Sight:
    return Sight(record=record, life=life_of(state), exit=_news(record, state))


def _news(record: ContainerRecord, state: ports.ContainerState | None) -> Exit | None:
    """How the container ended, unless that is in the record already."""
    ended = state.exit if state is not None else None
    return ended if ended != record.exit else None


def life_of(state: ports.ContainerState | None) -> Life:
    """What the runtime's answer amounts to."""
    if state is None:
        return Life.NONE
    return Life.RUNNING if state.exit is None else Life.STOPPED
