"""Answers in words whatever goes wrong in a call to this node; stands before every service of its server.

Two rules. A caller gets one line and never a traceback: what nobody expected stands in the log of the agent. And a
message that is none of its call's is its sender's mistake, and no trouble of this node's.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    # Generic in the stubs only.
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Interceptor: TypeAlias = grpc.aio.ServerInterceptor[Any, Any]
else:
    Context = grpc.aio.ServicerContext
    Interceptor = grpc.aio.ServerInterceptor

NO_MESSAGE: Final = "the message is none of this call's"
NOT_EXPECTED: Final = "an error inside the agent of this node; its log has the details"

log = structlog.get_logger()


class _Unreadable:
    """Stands for a message that is none of its call's."""


_UNREADABLE: Final = _Unreadable()


class Refusals(Interceptor):
    """Of calls with one message, which is all that nodes are asked for."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler with its failures answered; None, as grpc wants it, for a method that nobody serves."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        assert not handler.request_streaming, f"{method} takes a stream: nothing here reads one"
        read = _reader(handler.request_deserializer)
        if handler.response_streaming:
            streamed = _streamed(handler.unary_stream, method)
            return grpc.unary_stream_rpc_method_handler(streamed, read, handler.response_serializer)
        answered = _answered(handler.unary_unary, method)
        return grpc.unary_unary_rpc_method_handler(answered, read, handler.response_serializer)


def _reader(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def tolerant(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return _UNREADABLE

    return tolerant


def _answered(behaviour: Callable[[Any, Context], Awaitable[Any]], method: str) -> Callable[[Any, Context], Any]:
    async def guarded(request: Any, context: Context) -> Any:
        async with _in_words(request, context, method):
            return await behaviour(request, context)

    return guarded


def _streamed(behaviour: Callable[[Any, Context], Any], method: str) -> Callable[[Any, Context], Any]:
    """Of a handler that writes, or that yields what is to be written."""

    async def guarded(request: Any, context: Context) -> None:
        async with _in_words(request, context, method):
            result = behaviour(request, context)
            if not hasattr(result, "__aiter__"):
                await result
                return
            async with contextlib.aclosing(result):
                async for response in result:
                    await context.write(response)

    return guarded


@contextlib.asynccontextmanager
async def _in_words(request: Any, context: Context, method: str) -> AsyncIterator[None]:
    if request is _UNREADABLE:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except (grpc.aio.UsageError, grpc.aio.InternalError):
        log.debug("the caller went away before the answer's end", method=method)
    except Exception:
        log.exception("a call failed unexpectedly", method=method)
        await context.abort(grpc.StatusCode.INTERNAL, NOT_EXPECTED)
