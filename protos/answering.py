"""What stands before the handlers of a gRPC server: how an interceptor wraps each of them.

An interceptor of ours is a `Before` that says how a call is guarded. What a handler answers is carried to its caller by
`carry` alone, so that whoever guards a stream of answers guards it to its end.
"""

import abc
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    # Generic in the stubs only.
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Interceptor: TypeAlias = grpc.aio.ServerInterceptor[Any, Any]
else:
    Context = grpc.aio.ServicerContext
    Interceptor = grpc.aio.ServerInterceptor

Behaviour: TypeAlias = Callable[[Any, Any], Any]
"""What a handler does with a request, or with a stream of them, and the context of the call."""
Reader: TypeAlias = Callable[[bytes], Any]
"""Makes a message of its bytes."""

NO_MESSAGE = "the message is none of this call's"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a message that is none of its call's, or that was too large to be read."""

    size_bytes: int = 0
    """0 unless it was too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of a server: `/orch.v1.Control/Apply`, and which sides send streams."""

    path: str
    takes_stream: bool
    streams: bool


class Before(Interceptor):
    """Stands before every handler of a server."""

    @abc.abstractmethod
    def guard(self, behaviour: Behaviour, method: Method) -> Behaviour:
        """What is done instead of a handler's behaviour. It carries the answer itself (`carry`), or awaits one."""

    def reader(self, read: Reader) -> Reader:
        """How a message is read; what is made of it reaches the behaviour above. Raise nothing: gRPC would answer."""
        return read

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The guarded handler; None, as grpc wants it, for a method that nobody serves."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = Method(
            path=str(handler_call_details.method),
            takes_stream=handler.request_streaming,
            streams=handler.response_streaming,
        )
        maker, behaviour = _parts(handler)
        read = self.reader(handler.request_deserializer)
        return maker(self.guard(behaviour, method), read, handler.response_serializer)


async def carry(behaviour: Behaviour, request: Any, context: Any) -> Any:
    """The one answer of a behaviour; None once its stream of answers, or what it wrote itself, is with the caller."""
    result = behaviour(request, context)
    if not hasattr(result, "__aiter__"):
        return await result
    async with contextlib.aclosing(result):
        async for response in result:
            await context.write(response)
    return None


def tolerant(read: Reader) -> Reader:
    """A reader that gives `Unreadable` for what is no message, so that whoever guards the call can say so."""

    def answered(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return Unreadable()

    return answered


def _parts(handler: Any) -> tuple[Callable[..., Any], Behaviour]:
    """How a handler of this shape is made, and what it does."""
    if handler.request_streaming:
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler, handler.stream_stream
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary
