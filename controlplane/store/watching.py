"""A watch on etcd that survives its link, its member and etcd itself.

Two rules. A watch is asked for from the last revision seen, not the one behind it, and the repetition is dropped: etcd
accepts a start at the very revision of a compaction although removals of that revision are lost there. And only what
is certain counts as seen: while a watch catches up, the revision in a response's header runs ahead of its events.

A watch that had to leave the member on its own machine goes back to it: on another one it hears nothing for eight
seconds when that machine is lost, and takes who led there for the leader.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from typing import Any

import grpc.aio
import structlog
from aetcd import rpc

from controlplane.store import api, endpoints, errors

BACKOFF_S = 0.05
BACKOFF_MAX_S = 1.0
LOOK_HOME_EVERY_S = 2.0
"""How soon a watch on another machine's member goes back to the one on its own."""

# etcd ends such a stream when its member has lost the quorum: better to know than to wait in silence.
_REQUIRE_LEADER = (("hasleader", "true"),)

log = structlog.get_logger(__name__)


class _HomeIsBackError(Exception):
    """The member on this machine can be watched again."""


async def watch(members: endpoints.Endpoints, prefix: str, after: int) -> AsyncGenerator[api.EventBatch, None]:
    """The `Store.watch` protocol: one stream after the other, each from where the last one ended."""
    seen, failures, lost = after, 0, False
    while True:
        link = members.in_order()[0]
        try:
            async with contextlib.aclosing(_stream(members, link, prefix, seen)) as batches:
                async for batch in batches:
                    if batch.revision > seen:  # a member that ends every watch at once is asked ever less often
                        failures = 0
                    seen, lost = batch.revision, False
                    yield batch
        except grpc.aio.AioRpcError as error:
            reason = endpoints.why_not(f"watch {prefix}", link, error)
        except (TimeoutError, errors.Unavailable) as error:
            reason = str(error) or f"{link.address}: no answer in time"
        except _HomeIsBackError:
            log.info("store.watch_comes_home", prefix=prefix, revision=seen, left=link.address)
            continue
        else:
            reason = f"{link.address}: the stream ended"
        if not lost:
            log.info("store.watch_interrupted", prefix=prefix, revision=seen, reason=reason)
            yield api.EventBatch(events=(), revision=seen, connected=False)
        failures, lost = failures + 1, True
        members.avoid(link, failures)
        await asyncio.sleep(_pause_s(failures))


async def _stream(
    members: endpoints.Endpoints, link: endpoints.Link, prefix: str, after: int
) -> AsyncGenerator[api.EventBatch, None]:
    """One watch on one member; returns or raises when that is over."""
    call = link.watch.Watch(metadata=_REQUIRE_LEADER)
    try:
        async with asyncio.timeout(endpoints.TRY_TIMEOUT_S):
            await members.guard(call.write(_request(prefix, after)))
            created = await members.guard(call.read())
            if created is endpoints.END_OF_STREAM:
                return
            _check_goes_on(link, created, after)
            await _check_history(members, created, after)
        yield api.EventBatch(events=(), revision=after)
        seen = after
        reader = _Reader(members, link, call)
        while (response := await reader.next()) is not endpoints.END_OF_STREAM:
            _check_goes_on(link, response, seen)
            batch = decode(response, seen)
            if batch is not None:
                seen = batch.revision
                yield batch
    finally:
        call.cancel()


class _Reader:
    """Reads a stream, and looks from time to time whether it still has to come from another machine."""

    def __init__(self, members: endpoints.Endpoints, link: endpoints.Link, call: Any) -> None:
        self._members = members
        self._link = link
        self._call = call
        self._clock = asyncio.get_running_loop().time
        self._look_at = self._clock() + LOOK_HOME_EVERY_S

    async def next(self) -> Any:
        """The next response. Raises _HomeIsBackError when the member on this machine can be watched instead."""
        if self._members.home in {None, self._link}:
            return await self._members.guard(self._call.read())
        reading = asyncio.ensure_future(self._members.guard(self._call.read()))
        try:
            # As a task, since a read that is cancelled ends the stream.
            while not reading.done():
                if self._clock() >= self._look_at:
                    if await self._members.is_home_again():
                        raise _HomeIsBackError
                    self._look_at = self._clock() + LOOK_HOME_EVERY_S
                await asyncio.wait((reading,), timeout=self._look_at - self._clock())
            return reading.result()
        finally:
            reading.cancel()


def _request(prefix: str, after: int) -> Any:
    return rpc.WatchRequest(
        create_request=rpc.WatchCreateRequest(
            key=prefix.encode() or b"\0",
            range_end=api.prefix_end(prefix),
            start_revision=max(1, after),  # 0 would mean "from now on"
            progress_notify=True,
        )
    )


async def _check_history(members: endpoints.Endpoints, created: Any, after: int) -> None:
    """A member behind `after` lags a little, or etcd was restored from a backup: the quorum's revision tells which."""
    if created.header.revision >= after:
        return
    revision = await members.revision()
    if revision < after:
        raise errors.Compacted(after, revision)


def _check_goes_on(link: endpoints.Link, response: Any, seen: int) -> None:
    """etcd ends a watch with a last response on a stream that stays open."""
    if response.compact_revision:
        raise errors.Compacted(seen, response.compact_revision)
    if response.canceled:
        raise errors.Unavailable(f"{link.address}: {response.cancel_reason or 'the watch was ended without a reason'}")


def decode(response: Any, seen: int) -> api.EventBatch | None:
    """What a response adds to what was `seen`; None when it only repeats. Revisions are never split by etcd."""
    if not response.events:
        return api.EventBatch(events=(), revision=max(seen, response.header.revision))
    events = tuple(_event(event) for event in response.events if event.kv.mod_revision > seen)
    return api.EventBatch(events=events, revision=events[-1].version) if events else None


def _event(event: Any) -> api.Event:
    value = None if event.type == rpc.Event.DELETE else event.kv.value
    return api.Event(key=event.kv.key.decode(), value=value, version=event.kv.mod_revision)


def _pause_s(failures: int) -> float:
    """50 ms, 100 ms, … 1 s, of which a random half keeps many watches from returning in step."""
    longest = min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1)  # noqa: S311 - not for secrets
