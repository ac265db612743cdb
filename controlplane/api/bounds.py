"""The bounds on every call, before anybody looks at what it wants: size, rate, number, and time.

    message ─► its size ─► who calls ─► the doorman ─► a deadline, or a reader that keeps reading ─► gate ─► handler

Three rules. What is refused here has done nothing, and the caller is told when to come back. Whoever lets a stream wait
too long is hung up on, with the connection: gRPC's core would keep what was not read until the caller takes it. And a
caller is who its certificate says, whether it is believed or not: the gate decides that, and costs more.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from controlplane import rpc
from controlplane.core import limits
from controlplane.core import request_errors as errors
from protos import answering
from trust import credentials
from trust.core.identity import Malformed

LONGEST_CALL_S = 120.0
"""For an answer, whatever deadline the caller has given itself; uploads have one for each message instead."""
NEXT_MESSAGE_S = 60.0
"""How long an upload may wait for its next message."""
PATIENCE_S = 30.0
"""How long a stream waits for a reader to take a message."""
PERSON_S = 900.0
"""The same where a person may have stopped the output to read it (Ctrl-S, a pager)."""
_PATIENCE: dict[str, float | None] = {
    "/orch.v1.Control/Logs": PERSON_S,
    "/orch.v1.Control/Exec": PERSON_S,
    # Input of a command that does not read it: whoever types waits, and is who is bounded.
    "/orch.v1.Dispatcher/Stream": None,
}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The bounds in seconds; None: the table above."""

    call_s: float = LONGEST_CALL_S
    next_message_s: float = NEXT_MESSAGE_S
    patience_s: float | None = None


class Bounds(answering.Before):
    """Stands inside `Refusals`, and outside the gate. `hang_up` ends the connection of a peer, as gRPC names it."""

    def __init__(
        self,
        doorman: limits.Doorman,
        now_ms: Callable[[], int],
        hang_up: Callable[[str], object],
        times: Times = Times(),
    ) -> None:
        self.doorman = doorman
        self._now_ms = now_ms
        self._hang_up = hang_up
        self._times = times
        self._most_bytes = max(limit.request_bytes for limit in doorman.limits.callers.values())

    def reader(self, read: answering.Reader) -> answering.Reader:
        """One that cannot be read is an answer to its caller, and no trouble of gRPC's."""
        readable = answering.tolerant(read)

        def bounded(data: bytes) -> Any:
            return readable(data) if len(data) <= self._most_bytes else answering.Unreadable(len(data))

        return bounded

    def guard(self, behaviour: answering.Behaviour, method: answering.Method) -> answering.Behaviour:
        patience_s = self._times.patience_s or _PATIENCE.get(method.path, PATIENCE_S)
        what = method.path.rpartition("/")[2]

        async def guarded(request: Any, context: answering.Context) -> Any:
            kind, who = caller(context)
            most_bytes = self.doorman.limits.callers[kind].request_bytes if kind is not None else self._most_bytes
            with self._let_in(kind, who, streams=method.streams):
                if method.takes_stream:
                    wait_s = None if method.streams else self._times.next_message_s
                    request = _read_each(request, most_bytes, wait_s)
                else:
                    request = _readable(request, most_bytes)
                if not method.streams:
                    call_s = None if method.takes_stream else self._times.call_s
                    return await _in_time(behaviour(request, context), call_s, what)
                return await self._streamed(behaviour, request, _Patient(context, patience_s, what))

        return guarded

    @contextlib.contextmanager
    def _let_in(self, kind: limits.Kind | None, who: str, *, streams: bool) -> Iterator[None]:
        """Inside the block the call is counted. Raises Overloaded."""
        if kind is None:
            yield
            return
        key = self.doorman.enter(kind, who, self._now_ms(), streams=streams)
        try:
            yield
        finally:
            self.doorman.leave(key, self._now_ms(), streams=streams)

    async def _streamed(self, behaviour: answering.Behaviour, request: Any, context: "_Patient") -> None:
        try:
            await answering.carry(behaviour, request, context)
        finally:
            if context.gave_up:
                _log.warning("a reader that does not read is hung up on", peer=context.peer(), call=context.what)
                self._hang_up(context.peer())


class _Patient:
    """A call's context that waits for its reader, and not for ever. Everything else is the context's own."""

    def __init__(self, context: answering.Context, patience_s: float | None, what: str) -> None:
        self._context = context
        self._patience_s = patience_s
        self.what = what
        self.gave_up = False

    async def write(self, message: Any) -> None:
        """Raises Overloaded when the reader does not take it."""
        try:
            async with asyncio.timeout(self._patience_s) as scope:
                await self._context.write(message)
        except TimeoutError:
            if not scope.expired():
                raise
            self.gave_up = True
            text = f"{self.what} was ended because its reader did not read for {self._patience_s:g} s"
            raise errors.Overloaded(text, hint="call again: it starts with everything that is there") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def caller(context: answering.Context) -> tuple[limits.Kind | None, str]:
    """Whose limits count. Nobody's where nobody shows a certificate: at a socket of this machine."""
    said = context.auth_context()
    if not said.get("x509_pem_cert"):
        return None, ""
    try:
        who = credentials.caller(said).identity
    except Malformed:
        return limits.Kind.STRANGER, address(context.peer())
    return limits.Kind.of(who.role), str(who)


def address(peer: str) -> str:
    """`ipv4:10.0.0.7:41234` → `10.0.0.7`."""
    return peer.partition(":")[2].rpartition(":")[0]


def _readable(message: Any, most_bytes: int) -> Any:
    """The message. Raises Invalid or Overloaded."""
    if isinstance(message, answering.Unreadable):
        if not message.size_bytes:
            raise errors.Invalid(answering.NO_MESSAGE, hint="are both sides of one version?")
        raise _too_large(message.size_bytes, most_bytes)
    # A message is larger in memory than on its way, and never smaller by much.
    if most_bytes < rpc.MAX_REQUEST_BYTES and (size_bytes := message.ByteSize()) > most_bytes:
        raise _too_large(size_bytes, most_bytes)
    return message


def _too_large(size_bytes: int, most_bytes: int) -> errors.Overloaded:
    text = f"a message of {size_bytes} bytes is more than the {most_bytes} that may be sent at once"
    return errors.Overloaded(text, hint="send less at a time")


async def _read_each(requests: AsyncIterator[Any], most_bytes: int, wait_s: float | None) -> AsyncIterator[Any]:
    """The messages of a stream. Raises what `_readable` raises, and TooLate."""
    iterator = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(wait_s):
                request = await anext(iterator)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise errors.TooLate(f"the next message did not come within {wait_s:g} s", hint="send it again") from None
        yield _readable(request, most_bytes)


async def _in_time(answer: Awaitable[Any], call_s: float | None, what: str) -> Any:
    """The answer. Raises TooLate."""
    try:
        async with asyncio.timeout(call_s) as scope:
            return await answer
    except TimeoutError:
        if not scope.expired():
            raise
        hint = "look whether the change is there before repeating it"
        raise errors.TooLate(f"{what} was not done within {call_s:g} s", hint=hint) from None
