"""Status reports on their way to the leader: only the newest one of each task, one batch at a time.

Most starts take less time than it takes to tell of them. What says only that a task is a step further on its way up
therefore waits a moment for what matters: that it runs, has ended, or is held up. Then a start is one report and one
write to the store, not four.

Two rules: a report is repeated until the leader has acknowledged it, in this session or the next; and after each new
session everything is reported, because the leader may be a new one.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from protos import states
from protos.orch.v1 import dispatcher_pb2 as dpb

PATIENCE_S = 0.1
"""How long a step on the way up waits to be told of. Other nodes learn a task's address from it, so no longer."""

REPEAT_S = 5.0
"""A batch that was not acknowledged for this long is sent again."""

BATCH = 500
"""Reports a message: about 100 KiB."""


class Outbox:
    """Filled by task runners, emptied by the session."""

    def __init__(self) -> None:
        self._waiting: dict[str, dpb.TaskReport] = {}
        self._sent: dict[str, dpb.TaskReport] = {}
        self._sequence = 0
        self._something = asyncio.Event()
        self._pressing = asyncio.Event()
        self._acknowledged = asyncio.Event()

    def put(self, report: dpb.TaskReport) -> None:
        """The newest status of a task."""
        self._waiting[report.task_id] = report
        self._something.set()
        if report.status.state >= states.RUNNING or report.status.reason:
            self._pressing.set()

    def drop(self, task_id: str) -> None:
        """The leader does not want to hear of the task any more."""
        self._waiting.pop(task_id, None)

    def begin(self, everything: Iterable[dpb.TaskReport]) -> None:
        """A new session has begun: what was sent in the last one counts as lost."""
        self._sequence, self._sent = 0, {}
        self._acknowledged.set()
        for report in everything:
            self.put(report)
        if self._waiting:
            self._pressing.set()

    async def next_batch(self) -> dpb.StatusReport:
        """The next message, when there is something to say and the one before it was acknowledged."""
        try:
            async with asyncio.timeout(REPEAT_S):
                await self._acknowledged.wait()
        except TimeoutError:
            # Of a task that has a newer report by now, the newer one is sent.
            self._waiting = {**self._sent, **self._waiting}
        await self._worth_telling()
        taken = dict(list(self._waiting.items())[:BATCH])
        for task_id in taken:
            del self._waiting[task_id]
        if not self._waiting:
            self._pressing.clear()
        self._sequence += 1
        self._sent = taken
        self._acknowledged.clear()
        return dpb.StatusReport(sequence=self._sequence, tasks=taken.values())

    async def _worth_telling(self) -> None:
        """Returns when there is something that matters, or something else has waited long enough."""
        while not self._waiting:
            self._something.clear()
            await self._something.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._pressing.wait()

    def acknowledge(self, sequence: int) -> None:
        """The leader has stored that batch. An old number changes nothing."""
        if sequence == self._sequence:
            self._sent = {}
            self._acknowledged.set()

    @property
    def idle(self) -> bool:
        """Whether the leader knows everything."""
        return not self._waiting and not self._sent
