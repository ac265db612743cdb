"""Reads one container's log from the agent of its node, into the merge of all logs of a call.

Two rules. Nobody waits for a lost node: the reader says so in a notice and ends, and can be run again from where it
stopped. And memory is bounded: a reader whose lines are not taken stops reading.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.api import ports
from controlplane.core.log_merge import LogMerge
from controlplane.dispatcher.streams import NodeUnreachable
from protos import containers, states
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2

MAX_LINES_IN_HAND = 2_000
"""Of one container; a reader with as many waits until some are taken."""

SILENCE_S = 15.0
"""An agent that sends nothing for so long, when all it has to do is to read files, is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the readers of one call share. `patience_s`: how long a log that shows nothing holds the others back."""

    streams: ports.Streams
    merge: LogMerge
    opening: asyncio.Semaphore
    follow: bool
    since_ms: int
    tail: int
    patience_s: float
    wake: Callable[[], None]
    tell: Callable[[str], None]
    all_containers: bool = False


class Reader:
    """`run` it in a task; `lost` says whether it ended because its agent was out of reach."""

    def __init__(self, call: Call, task: objects_pb2.Task, container: str, node_name: str) -> None:
        self.task = task
        self.container = container
        self.name = containers.identity(task.meta.id, container)
        self.reading = True
        self.lost = False
        self._call = call
        self._node_name = node_name
        self._last_ns = -1
        self._resume_after_ns = -1
        self._taken = asyncio.Event()
        self._patient_until = 0.0
        self._be_patient(call.patience_s)

    def is_awaited(self, now: float) -> bool:
        """Whether lines of other logs should wait for this one. `now` is on the event loop's clock."""
        return self.reading and now < self._patient_until

    @property
    def patient_until(self) -> float:
        return self._patient_until

    def taken(self) -> None:
        """Some of its lines may have been taken: it may read on."""
        self._taken.set()

    def restart(self) -> None:
        """Before `run` is called once more."""
        assert not self.reading, "it is running"
        self.reading, self.lost = True, False
        self._resume_after_ns = self._last_ns
        self._be_patient(self._call.patience_s)

    async def run(self) -> None:
        """Reads until the log ends or its agent is lost."""
        name = self.name
        try:
            await self._read()
        except NodeUnreachable as error:
            self._lose(f"{name} on node {self._node_name}: {error}")
        except LinkLost as error:
            self._lose(f"{name} on node {self._node_name}: the log broke off: {error}")
        except TimeoutError:
            self._lose(f"{name} on node {self._node_name}: its agent has sent nothing for {SILENCE_S:g} s")
        finally:
            self.reading = False
            self._call.wake()

    async def _read(self) -> None:
        async with self._call.opening:
            link = await self._call.streams.open(self.task.node_id, wire.OpenStream(logs=self._request()))
        try:
            while True:
                async with asyncio.timeout(None if self._call.follow else SILENCE_S):
                    frame = await link.receive()
                match frame.WhichOneof("frame"):
                    case "logs":
                        await self._take_in(frame.logs)
                    case "error":
                        self._explain(frame.error.message)
                        return
                    case "end":
                        return
                    case other:
                        raise LinkLost(f"the agent sent {other} instead of lines")
        finally:
            await link.close("the log is read")

    def _request(self) -> wire.TaskLogsRequest:
        """Everything that was asked for; after a loss, what came since the last line."""
        request = wire.TaskLogsRequest(
            task_id=self.task.meta.id,
            container=self.container,
            follow=self._call.follow,
            since=self._call.since_ms,
            tail=self._call.tail,
        )
        if self._resume_after_ns >= 0:
            request.since = max(request.since, self._resume_after_ns // 1_000_000)
            request.tail = -1
        return request

    async def _take_in(self, logs: pb.LogsResponse) -> None:
        # After a restart the agent begins with the millisecond of the last line.
        lines = [line for line in logs.lines if line.time_ns > self._resume_after_ns]
        name = self.name
        for line in lines:
            line.task = self.task.meta.id
            if self._call.all_containers:
                line.container = self.container
        self._be_patient(self._call.patience_s)
        if not lines:
            return
        self._call.merge.add(name, lines)
        self._call.wake()
        while self._call.merge.in_hand(name) >= MAX_LINES_IN_HAND:
            self._taken.clear()
            await self._taken.wait()
        self._last_ns = lines[-1].time_ns

    def _explain(self, why: str) -> None:
        """An agent forgets the logs of tasks that ended long ago: no news when a whole service is read."""
        if not states.is_terminal(self.task.status.state):
            self._call.tell(f"{self.name} on node {self._node_name}: {why}")

    def _lose(self, why: str) -> None:
        if not self.lost:
            self._call.tell(why)
        self.lost = True

    def _be_patient(self, patience_s: float) -> None:
        self._patient_until = asyncio.get_running_loop().time() + patience_s
