"""Counts every call, and how long it took. It stands before everything else, so that refusals are counted, too.

The rule: a method is one that this server has; whoever invents others makes no more counters.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from controlplane import metrics, rpc
from controlplane.api import errors as answering

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Measuring(rpc.Interceptor):
    """The first of a server's interceptors."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler, counted; None, as grpc wants it, for a method that nobody serves."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        maker, behaviour = answering.parts(handler)
        method = str(handler_call_details.method).removeprefix("/")
        streams = handler.request_streaming or handler.response_streaming
        counted = functools.partial(_counted, behaviour, method, streams=streams)
        return maker(counted, handler.request_deserializer, handler.response_serializer)


async def _counted(
    behaviour: Callable[[Any, Any], Awaitable[Any]], method: str, request: Any, context: rpc.Context, *, streams: bool
) -> Any:
    began, failed = time.perf_counter(), grpc.StatusCode.UNKNOWN
    with metrics.RPCS_OPEN.labels(method).track_inprogress():
        try:
            answer = await behaviour(request, context)
            failed = grpc.StatusCode.OK
        except asyncio.CancelledError:
            failed = grpc.StatusCode.CANCELLED
            raise
        finally:
            code = (_code(context) or failed).name
            metrics.RPCS.labels(method, code).inc()
            if not streams:
                metrics.RPC_SECONDS.labels(method, code).observe(time.perf_counter() - began)
        return answer


def _code(context: rpc.Context) -> grpc.StatusCode | None:
    """What the call was aborted with; gRPC gives a number or the code, and None or 0 while nobody has said any."""
    said: Any = context.code()
    code = said if isinstance(said, grpc.StatusCode) else _CODES.get(said)
    return code if code is not grpc.StatusCode.OK else None
