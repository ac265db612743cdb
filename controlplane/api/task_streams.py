"""What calls that go through to one task's node have in common: their first message, and the way to the node."""

import asyncio
from collections.abc import AsyncIterator
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
