"""One task's life on this node: ask for the next step, carry it out, write down and report what came of it, repeat.

Two rules: everything that happens elsewhere (a change of what is wanted, an exit) is only noted by those who see it
and taken over at the top of the loop; and what is reported has been written to disk before.
"""

import asyncio
import dataclasses
from collections.abc import Callable

import structlog

from agent import ports
from agent.core import probes, retry, status, steps
from agent.core.probes import Verdict
from agent.core.record import Exit, Record
from agent.core.steps import Desired, Life, Observed
from agent.errors import AgentError, Refused, Temporary
from agent.executor import Executor, Tools
from agent.probing import Probing
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
        self._ended: Exit | None = None
        self._watching: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._probed: tuple[int, int] | None = None  # the container that is asked how it is
        self._fresh = False  # it was started here, and not asked yet
        self._verdict: Verdict | None = None
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
        if steps.is_unwanted(desired) and waiting is not None and not waiting.expired():
            waiting.reschedule(asyncio.get_running_loop().time())

    def nudge(self) -> None:
        """Something that the task may have waited for has come: try again now."""
        self._forgive()

    def report(self) -> dpb.TaskReport | None:
        """What the leader should know now; None when it does not want to."""
        if self.desired.gone or self.desired.lost:
            return None
        current = status.status_of(self.observed, unwanted=steps.is_unwanted(self.desired))
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
            if self.observed.life is Life.RUNNING:
                self._watching = group.create_task(self._watch())
            while True:
                self._take_over()
                self._ask_how_it_is(group)
                await self._write()
                self._say()
                step = steps.next_step(self.observed, self.desired, self._tools.now_ms())
                if isinstance(step, steps.Wait):
                    await self._sleep(step)
                    continue
                await self._carry_out(step)
                if isinstance(step, steps.Forget) and self.observed.failure is None:
                    return
                if isinstance(step, steps.StartContainer) and self.observed.life is Life.RUNNING:
                    self._fresh = True
                    self._watching = group.create_task(self._watch())

    async def _watch(self) -> None:
        self._ended = await self._tools.runtime.wait(self.task.meta.id)
        self._wake.set()

    def _take_over(self) -> None:
        if self._ended is not None and self.observed.life is Life.RUNNING:
            self.observed = dataclasses.replace(self.observed, life=Life.STOPPED, exit=self._ended)
        self._ended = None
        if self._verdict is not None and self.observed.life is Life.RUNNING:
            self._note(ready=self._verdict.ready, unhealthy=self._verdict.restart)
            self.observed = dataclasses.replace(self.observed, not_ready=self._verdict.message)
        self._verdict = None
        if self.observed.record.leaving_since and not steps.is_unwanted(self.desired):
            self._note(leaving_since=0, draining_since=0)  # taken from the node, and given to it again

    def _note(self, **changes: object) -> None:
        record = dataclasses.replace(self.observed.record, **changes)  # type: ignore[arg-type]
        self.observed = dataclasses.replace(self.observed, record=record)

    def _ask_how_it_is(self, group: asyncio.TaskGroup) -> None:
        """Whatever container runs and is to go on is asked; no other one."""
        wanted = self._to_be_probed()
        if wanted == self._probed:
            return
        if self._probing is not None:
            self._probing.cancel()
        self._probed, self._probing, self._verdict = wanted, None, None
        if wanted is None:
            return
        record, container = self.observed.record, self.desired.template.container
        age_ms = max(0, self._tools.now_ms() - record.started_at)
        health = probes.begin(
            container.probes,
            age_ms=age_ms,
            jitter=self._tools.chance.random(),
            adopted=not self._fresh,
            was_ready=record.ready,
        )
        self._fresh = False
        target = probes.Target(
            task_id=self.task.meta.id, address=record.address or record.address6, container=container
        )
        probing = Probing(target, health, age_ms=age_ms, prober=self._tools.prober, tell=self._judge)
        self._probing = group.create_task(probing.run())

    def _judge(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._wake.set()

    def _to_be_probed(self) -> tuple[int, int] | None:
        record, asked = self.observed.record, probes.questions(self.desired.template.container.probes)
        goes_on = self.observed.life is Life.RUNNING and record.state == states.RUNNING and not record.unhealthy
        return (
            (record.started_at, record.restarts) if asked and goes_on and not steps.is_unwanted(self.desired) else None
        )

    async def _carry_out(self, step: steps.Step) -> None:
        """The step, and what becomes of its failure."""
        log.debug("step", task=self.task.meta.id, step=step.describe())
        if isinstance(step, steps.DeleteContainer) and self._watching is not None:
            self._watching.cancel()
            self._watching, self._ended = None, None
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

    async def _bounded(self, step: steps.Step) -> Observed:
        """Only so many at once do the heavy steps; and an image is not waited for when nobody wants the task."""
        match step:
            case steps.PrepareImage():
                return await self._interruptibly(step)
            case steps.StartContainer() | steps.AttachNetwork():
                async with self._slots:
                    return await self._executor.execute(step, self.observed, self.desired)
            case _:
                return await self._executor.execute(step, self.observed, self.desired)

    async def _interruptibly(self, step: steps.Step) -> Observed:
        try:
            async with asyncio.timeout(None) as self._interruptible:
                return await self._executor.execute(step, self.observed, self.desired)
        except TimeoutError:
            return self.observed
        finally:
            self._interruptible = None

    def _fail_for_now(self, step: steps.Step, before: steps.Failure | None, error: AgentError) -> None:
        failure = retry.temporary(
            before,
            reason=error.reason,
            message=error.message,
            now_ms=self._tools.now_ms(),
            jitter=self._tools.chance.random(),
        )
        preparing = isinstance(step, steps.PrepareImage | steps.TakeUsers | steps.TakeAddress | steps.AttachNetwork)
        if preparing and failure.attempts >= retry.PREPARE_ATTEMPTS:
            failure = retry.final(reason=error.reason, message=error.message)
        self._fail(step, failure)

    def _fail(self, step: steps.Step, failure: steps.Failure) -> None:
        log.warning("step failed", task=self.task.meta.id, step=step.describe(), error=failure.message)
        self.observed = dataclasses.replace(self.observed, failure=failure)

    def _forgive(self) -> None:
        """A failure that waits for its time need not wait any longer."""
        if self.observed.failure is not None and not self.observed.failure.final:
            self.observed = dataclasses.replace(self.observed, failure=None)
        self._wake.set()

    async def _sleep(self, step: steps.Wait) -> None:
        delay_s = max(0, step.until - self._tools.now_ms()) / 1000 if step.until else None
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _write(self) -> None:
        if self.observed.record == self._written or self.desired.gone:
            return
        try:
            await self._tools.disk.save_record(self.task.meta.id, self.observed.record)
        except AgentError as error:
            # The task goes on without it: what is lost is what another agent would have known after this one's death.
            log.warning("the record was not written", task=self.task.meta.id, error=error.message)
        else:
            self._written = self.observed.record

    def _say(self) -> None:
        if states.is_terminal(self.observed.record.state) and not self.over.done():
            self.over.set_result(None)
        report = self.report()
        if report is not None and report.status != self._reported:
            self._reported = report.status
            self._report_to(report)


def stray(container_id: str, state: ports.ContainerState | None) -> tuple[pb.Task, Desired, Observed]:
    """What to make a runner of for something that is on the node and in no assignment: it is stopped and removed."""
    task = pb.Task(meta=pb.Meta(id=container_id, name=container_id))
    template = pb.TaskTemplate(stop_grace_period=10_000)
    desired = Desired(state=pb.DESIRED_STATE_REMOVE, template=template, gone=True)
    return task, desired, Observed(record=Record(), life=life_of(state), exit=state.exit if state else None)


def life_of(state: ports.ContainerState | None) -> Life:
    """What the runtime's answer amounts to."""
    if state is None:
        return Life.NONE
    return Life.RUNNING if state.exit is None else Life.STOPPED
