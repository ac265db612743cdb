"""Logs: the output of one task or of all tasks of a service, merged into one stream.

    agent ──frames──► reader ──lines──► merge ──► pump ──► caller
    cache ──tasks that start, nodes that return──► readers

Each container that has a log gets a reader. Lines go out in the order of their times as far as that can be had: what is
there already is in order; what comes while following goes out as it comes.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from controlplane.api import ports
from controlplane.api.log_reader import Call, Reader
from controlplane.core import container_names, lookup
from controlplane.core import request_errors as errors
from controlplane.core.log_merge import LogMerge
from controlplane.store import feed, snapshots
from controlplane.store.cache import Cache
from protos import containers, states
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2

MAX_READERS = 1_000
OPENING_AT_ONCE = 64
BATCH_LINES = 500
PATIENCE_S = 2.0
FOLLOWING_PATIENCE_S = 0.2
"""While following, a silent log is the normal case, and lines should be seen at once."""

Send = Callable[[pb.LogsResponse], Awaitable[object]]


class LogSession:
    """One call of Logs. `check_leading` raises NotLeader when this instance does not lead (any more)."""

    def __init__(
        self, known: Cache, streams: ports.Streams, request: pb.LogsRequest, *, check_leading: Callable[[], None]
    ) -> None:
        self._cache = known
        self._request = request
        self._check_leading = check_leading
        self._readers: dict[str, Reader] = {}
        self._notices: deque[str] = deque()
        self._woken = asyncio.Event()
        self._merge = LogMerge()
        self._call = Call(
            streams=streams,
            merge=self._merge,
            opening=asyncio.Semaphore(OPENING_AT_ONCE),
            follow=request.follow,
            since_ms=request.since,
            tail=request.tail,
            patience_s=FOLLOWING_PATIENCE_S if request.follow else PATIENCE_S,
            wake=self._woken.set,
            tell=self._notices.append,
            all_containers=request.all_containers,
        )

    async def run(self, send: Send) -> None:
        """Sends until nothing more comes. Raises Unknown, Invalid or NotLeader."""
        self._check_leading()
        target = _Target(self._cache.snapshot(), self._request)
        await send(pb.LogsResponse())  # a quiet log says nothing for long; whoever waits knows that it was found
        with self._cache.subscribe({"service", "task", "node"}) as subscription:
            async with asyncio.TaskGroup() as group:
                self._start_readers(group, target)
                follower = group.create_task(self._follow(group, target, subscription))
                await self._pump(target, send)
                follower.cancel()

    async def _follow(self, group: asyncio.TaskGroup, target: "_Target", subscription: feed.Subscription) -> None:
        """Starts readers for tasks that start, and again for those whose node has returned."""
        while self._request.follow:
            taken = await subscription.take()
            self._start_readers(group, target)
            if taken.resync or any(change.kind.message is objects_pb2.Node for change in taken.changes):
                self._restart_readers(group)
            self._woken.set()

    def _start_readers(self, group: asyncio.TaskGroup, target: "_Target") -> None:
        state = self._cache.snapshot()
        for task in target.tasks(state):
            for container in target.containers(state, task):
                if containers.identity(task.meta.id, container) in self._readers:
                    continue
                if len(self._readers) >= MAX_READERS:
                    self._notices.append(f"only the newest {MAX_READERS} logs are read")
                    return
                reader = Reader(self._call, task, container, lookup.node_name(state, task.node_id))
                self._readers[reader.name] = reader
                group.create_task(reader.run())

    def _restart_readers(self, group: asyncio.TaskGroup) -> None:
        state = self._cache.snapshot()
        for reader in self._readers.values():
            node = state.get(objects_pb2.Node, reader.task.node_id)
            if reader.lost and not reader.reading and node and node.status.state == objects_pb2.NODE_STATE_READY:
                reader.restart()
                group.create_task(reader.run())

    # Sending ----------------------------------------------------------------------------------------------------------

    async def _pump(self, target: "_Target", send: Send) -> None:
        """Sends what may go until all readers have ended and no more can come."""
        while True:
            self._woken.clear()
            await self._send_ready(send)
            if any(reader.lost for reader in self._readers.values()):
                self._check_leading()
            if not self._merge and not self._woken.is_set() and self._is_over(target):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_patience()):
                    await self._woken.wait()

    async def _send_ready(self, send: Send) -> None:
        while self._notices:
            await send(pb.LogsResponse(notice=self._notices.popleft()))
        while lines := self._merge.take(self._awaited(), BATCH_LINES):
            for reader in self._readers.values():
                reader.taken()
            await send(pb.LogsResponse(lines=lines))

    def _awaited(self) -> set[str]:
        now = asyncio.get_running_loop().time()
        return {name for name, reader in self._readers.items() if reader.is_awaited(now)}

    def _next_patience(self) -> float | None:
        """When the next of the awaited logs stops holding the others back; None when lines need not wait."""
        if not self._merge:
            return None
        now = asyncio.get_running_loop().time()
        return min((each.patient_until for each in self._readers.values() if each.is_awaited(now)), default=now)

    def _is_over(self, target: "_Target") -> bool:
        if any(reader.reading for reader in self._readers.values()):
            return False
        return not self._request.follow or target.is_gone(self._cache.snapshot())


class _Target:
    """The task or the service whose logs are asked for."""

    def __init__(self, state: snapshots.Snapshot, request: pb.LogsRequest) -> None:
        if bool(request.service) == bool(request.task):
            raise errors.Invalid("logs are of one service or of one task: name one of them")
        self._namespace = request.namespace or lookup.DEFAULT_NAMESPACE
        self._service = request.service
        self._container = request.container
        self._all_containers = request.all_containers
        self._task = ""
        if request.container and request.all_containers:
            raise errors.Invalid("logs are of one container or of all of them: name one, or ask for all")
        if request.task:
            task = lookup.task(state, self._namespace, request.task)
            self._task = task.meta.id
            container_names.check(state, [task], request.container)
            if not request.follow and not self._has_log(task):
                where = states.word(task.status.state)
                raise errors.NotNow(
                    f"{task.meta.id} has no log: it is {where} and has not started", hint=task.status.message
                )
        elif not state.tasks_of(self._namespace, request.service):
            self._service = lookup.service(state, self._namespace, request.service).meta.name
        else:
            container_names.check(state, state.tasks_of(self._namespace, request.service).values(), request.container)

    def tasks(self, state: snapshots.Snapshot) -> list[objects_pb2.Task]:
        """Those that have a log, newest first."""
        return sorted(
            filter(self._has_log, self._candidates(state)),
            key=lambda task: (task.meta.created_at, task.meta.id),
            reverse=True,
        )

    def containers(self, state: snapshots.Snapshot, task: objects_pb2.Task) -> tuple[str, ...]:
        """Those of a task whose logs are asked for."""
        return container_names.of(state, task) if self._all_containers else (self._container or containers.MAIN,)

    def is_gone(self, state: snapshots.Snapshot) -> bool:
        """No log can come any more."""
        if self._task:
            return all(states.is_terminal(task.status.state) for task in self._candidates(state))
        service = state.get(objects_pb2.Service, self._service, namespace=self._namespace)
        return service is None and not state.tasks_of(self._namespace, self._service)

    def _candidates(self, state: snapshots.Snapshot) -> Iterable[objects_pb2.Task]:
        if not self._task:
            return state.tasks_of(self._namespace, self._service).values()
        task = state.get(objects_pb2.Task, self._task, namespace=self._namespace)
        return () if task is None else (task,)

    def _has_log(self, task: objects_pb2.Task) -> bool:
        """The container was started at least once, on a node; of one before the main one that may be so."""
        started = task.status.started_at != 0 or task.status.state == states.RUNNING
        if self._all_containers or self._container not in {"", containers.MAIN}:
            started = task.status.state >= states.STARTING
        return bool(task.node_id) and started
