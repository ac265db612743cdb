"""Asks one container how it is, from its start (or its adoption) to its end.

Two rules: what an answer means is decided in `core/probes`, here it is only asked and waited; and whoever listens is
told of a changed verdict at once, of another message at most once a second, and of the same thing never again.
"""

import asyncio
from collections.abc import Callable

import structlog

from agent import metrics, ports
from agent.core import probes
from agent.core.probes import Answer, Health, Question, Target, Verdict
from protos.orch.v1 import objects_pb2 as pb

log = structlog.get_logger()

PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.4)
"""A container that comes up is asked again after these pauses, as long as one asking may take: most answer within a
second of their start, and need not wait for a whole interval."""

MESSAGES_EVERY_S = 1.0


class Probing:
    """The questions to one container. `run` it in a task of its own; it ends by itself when there is nothing to ask."""

    def __init__(
        self, target: Target, health: Health, *, age_ms: int, prober: ports.Prober, tell: Callable[[Verdict], None]
    ) -> None:
        self._target = target
        self._health = health
        self._prober = prober
        self._tell_to = tell
        self._loop = asyncio.get_running_loop()
        self._born_s = self._loop.time() - age_ms / 1000
        self._told: Verdict | None = None
        self._told_at_s = 0.0

    async def run(self) -> None:
        self._tell()
        while questions := probes.open_questions(self._health):
            async with asyncio.TaskGroup() as group:
                for question in questions:
                    group.create_task(self._keep_asking(question))

    async def _keep_asking(self, question: Question) -> None:
        while question in probes.open_questions(self._health):
            await asyncio.sleep((self._health.counts[question].due - self._age_ms()) / 1000)
            asked_ms = self._age_ms()
            answer = await self._ask(question)
            metrics.probed(question, good=answer.good)
            self._health = probes.advance(self._health, question, answer, asked_ms=asked_ms, now_ms=self._age_ms())
            self._tell()

    async def _ask(self, question: Question) -> Answer:
        probe = probes.probe_of(self._health.probes, question)
        ends_s = self._loop.time() + min(probe.timeout, probes.interval_ms(probe)) / 1000
        answer = await self._ask_once(probe)
        if probes.is_coming_up(self._health, question):
            for pause_s in PAUSES_S:
                if answer.good or self._loop.time() + pause_s >= ends_s:
                    break
                await asyncio.sleep(pause_s)
                answer = await self._ask_once(probe)
        return answer

    async def _ask_once(self, probe: pb.Probe) -> Answer:
        try:
            return await self._prober.ask(self._target, probe)
        except Exception:  # one container's trouble must not end the others
            log.exception("a probe failed in an unexpected way", container=self._target.container_id)
            return Answer(good=False, message="the agent failed to ask: see its log")

    def _tell(self) -> None:
        verdict, now_s = probes.verdict(self._health), self._loop.time()
        if self._told is not None:
            if verdict == self._told:
                return
            decided = (verdict.ready, verdict.restart) != (self._told.ready, self._told.restart)
            if not decided and now_s - self._told_at_s < MESSAGES_EVERY_S:
                return
        self._told, self._told_at_s = verdict, now_s
        self._tell_to(verdict)

    def _age_ms(self) -> int:
        return int((self._loop.time() - self._born_s) * 1000)
