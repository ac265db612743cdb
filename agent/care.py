"""Looks after one container while it runs: waits for its end, runs its hooks, and asks it how it is.

Two rules: everything that is heard is kept here until the task's runner takes it over; and a hook that an agent was
killed in the middle of is run again by the next one, because nobody knows how far it came.
"""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import TypeVar

import structlog

from agent.core import probes
from agent.core.observed import Desired, Life, Observed, Sight, is_unwanted
from agent.core.probes import Answer, Target, Verdict
from agent.core.record import HOOK, Exit, Record
from agent.executor import Tools
from agent.probing import Probing
from protos import containers, states
from protos.orch.v1 import objects_pb2 as pb

log = structlog.get_logger()

SightT = TypeVar("SightT", bound=Sight)


class Care:
    """One container of a task, by its name. `wake` is called whenever there is something to take over."""

    def __init__(self, task_id: str, name: str, *, tools: Tools, wake: Callable[[], None]) -> None:
        self._id = containers.identity(task_id, name)
        self._name = name
        self._tools = tools
        self._wake = wake
        self._ended: Exit | None = None
        self._watching: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._asked: tuple[int, int] | None = None  # the container that is asked how it is
        self._fresh = False  # it was started here, and not asked yet
        self._hooked = False
        self._verdict: Verdict | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._prepared = False

    def watch(self, group: asyncio.TaskGroup, *, fresh: bool) -> None:
        """Wait for the end of the container that runs now; `fresh` when it has just been started."""
        self._fresh = fresh
        self._watching = group.create_task(self._watch())

    def forget(self) -> None:
        """It is removed: its end is no news any more."""
        if self._watching is not None:
            self._watching.cancel()
        self._watching = self._ended = None

    async def _watch(self) -> None:
        self._ended = await self._tools.runtime.wait(self._id)
        self._wake()

    def take_over(self, sight: SightT) -> SightT:
        """What there is of the container, with everything that was heard of it."""
        if sight.life is Life.RUNNING:
            if self._ended is not None:
                sight = dataclasses.replace(sight, life=Life.STOPPED, exit=self._ended)
            elif self._verdict is not None:
                record = dataclasses.replace(
                    sight.record,
                    ready=self._verdict.ready,
                    unhealthy=self._verdict.restart,
                    hooked=sight.record.hooked or self._hooked,
                )
                sight = dataclasses.replace(sight, record=record, not_ready=self._verdict.message)
            if self._prepared:
                sight = dataclasses.replace(sight, stop_prepared=True)
        self._ended = self._verdict = None
        self._hooked = self._prepared = False
        return sight

    def attend(self, group: asyncio.TaskGroup, observed: Observed, desired: Desired) -> None:
        """Whatever container runs and is to go on is asked how it is; one that is about to be stopped gets its hook."""
        self._ask(group, observed, desired)
        sight = observed.of(self._name)
        wanted = bool(sight.life is Life.RUNNING and sight.prepare_stop_at and not sight.stop_asked_at)
        if wanted and not sight.stop_prepared and self._preparing is None:
            self._preparing = group.create_task(self._prepare_stop(observed, desired))
        elif not wanted and self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None

    def _ask(self, group: asyncio.TaskGroup, observed: Observed, desired: Desired) -> None:
        wanted = self._to_be_asked(observed, desired)
        if wanted == self._asked:
            return
        if self._asking is not None:
            self._asking.cancel()
        self._asked, self._asking, self._verdict, self._hooked = wanted, None, None, False
        if wanted is not None:
            adopted, self._fresh = not self._fresh, False
            self._asking = group.create_task(self._keep_asking(observed, desired, adopted=adopted))

    def _to_be_asked(self, observed: Observed, desired: Desired) -> tuple[int, int] | None:
        sight, container = observed.of(self._name), desired.container(self._name)
        asked = probes.questions(container.probes) or _is_hooked_first(container)
        goes_on = sight.life is Life.RUNNING and not sight.record.unhealthy and not sight.stop_asked_at
        if not self._name:
            goes_on = goes_on and observed.record.state == states.RUNNING
        return (
            (sight.record.started_at, sight.record.restarts) if asked and goes_on and not is_unwanted(desired) else None
        )

    async def _keep_asking(self, observed: Observed, desired: Desired, *, adopted: bool) -> None:
        record, container = observed.of(self._name).record, desired.container(self._name)
        target = Target(container_id=self._id, address=_address(observed.record), container=container)
        if _is_hooked_first(container) and not record.hooked:
            self._judge(Verdict(ready=False, message="its postStart hook runs"))
            answer = await self._run_hook(target, container.lifecycle.post_start)
            if not answer.good:
                self._judge(Verdict(ready=False, restart=f"{HOOK}{answer.message}"))
                return
            self._hooked = True
            self._judge(Verdict(ready=not probes.decide_ready(container.probes)))
        age_ms = max(0, self._tools.now_ms() - record.started_at)
        health = probes.begin(
            container.probes,
            age_ms=age_ms,
            jitter=self._tools.chance.random(),
            adopted=adopted,
            was_ready=record.ready,
        )
        await Probing(target, health, age_ms=age_ms, prober=self._tools.prober, tell=self._judge).run()

    def _judge(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._wake()

    async def _prepare_stop(self, observed: Observed, desired: Desired) -> None:
        """The container is stopped whatever comes of its hook."""
        container = desired.container(self._name)
        target = Target(container_id=self._id, address=_address(observed.record), container=container)
        answer = await self._run_hook(target, container.lifecycle.pre_stop)
        if not answer.good:
            log.warning("a preStop hook failed", container=self._id, why=answer.message)
        self._prepared = True
        self._wake()

    async def _run_hook(self, target: Target, hook: pb.Hook) -> Answer:
        probe = probes.of_hook(hook)
        if probe is None:
            await asyncio.sleep(hook.sleep / 1000)
            return Answer(good=True)
        try:
            return await self._tools.prober.ask(target, probe)
        except Exception:  # one container's trouble must not end the others
            log.exception("a hook failed in an unexpected way", container=self._id)
            return Answer(good=False, message="the agent failed to run it: see its log")


def _is_hooked_first(container: pb.Container) -> bool:
    return container.lifecycle.HasField("post_start")


def _address(record: Record) -> str:
    """Where its task is asked: by IPv4 if it has that."""
    return record.address or record.address6
