"""What calls that go through to one task's node have in common: the first message, the way there, and both ways.

The rule: whoever writes an answer is not cancelled for a mistake of the caller's. gRPC never ends a call whose write
was given up in the middle, so the mistake is told between two answers.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import TypeVar

from controlplane.api import ports
from controlplane.core import request_errors as errors
from controlplane.dispatcher.streams import NodeUnreachable
from protos.orch.v1 import dispatcher_pb2 as wire

START_TIMEOUT_S = 10.0

T = TypeVar("T")


async def first(requests: AsyncIterator[T], who: str, what: str) -> T | None:
    """The first message of a call; None when it has ended before. Raises Invalid when it is long in coming."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            return await anext(requests, None)
    except TimeoutError:
        raise errors.Invalid(f"{who} has to say within {START_TIMEOUT_S:g} s {what}") from None


async def open_stream(streams: ports.Streams, node_id: str, ask: wire.OpenStream, place: str) -> ports.AgentLink:
    """A stream to the task's node; the caller closes it. `place` is for the message. Raises NotReachable."""
    try:
        return await streams.open(node_id, ask)
    except NodeUnreachable as error:
        raise errors.NotReachable(
            f"{place} cannot be reached: {error}", hint="`orchctl node ls` shows the nodes"
        ) from error


async def both_ways(
    link: ports.AgentLink, feed: Coroutine[object, object, None], pass_on: Coroutine[object, object, None]
) -> None:
    """Runs `feed`, what the caller sends, beside `pass_on`, what the agent answers, until that has ended.

    A refusal that `feed` raises ends both, and comes out.
    """
    async with asyncio.TaskGroup() as group:
        feeder = group.create_task(_mistake_of(link, feed))
        try:
            await pass_on
        except errors.NotReachable:
            if feeder.done() and (mistake := feeder.result()) is not None:
                raise mistake from None
            raise
        finally:
            feeder.cancel()


async def _mistake_of(link: ports.AgentLink, feed: Coroutine[object, object, None]) -> errors.RequestError | None:
    """What the caller has done wrong. Whoever awaits the agent's answer then hears that there is none."""
    try:
        await feed
    except errors.RequestError as mistake:
        await link.close(str(mistake))
        return mistake
    return None
