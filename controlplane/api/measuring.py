"""Counts every call, and how long it took. It stands before everything else, so that refusals are counted, too.

The rule: a method is one that this server has; whoever invents others makes no more counters.
"""

import asyncio
import functools
import time
from typing import Any

import grpc

from controlplane import metrics
from protos import answering

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Measuring(answering.Before):
    """The first of a server's interceptors."""

    def guard(self, behaviour: answering.Behaviour, method: answering.Method) -> answering.Behaviour:
        name = method.path.removeprefix("/")
        return functools.partial(_counted, behaviour, name, streams=method.takes_stream or method.streams)


async def _counted(
    behaviour: answering.Behaviour, method: str, request: Any, context: answering.Context, *, streams: bool
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


def _code(context: answering.Context) -> grpc.StatusCode | None:
    """What the call was aborted with; gRPC gives a number or the code, and None or 0 while nobody has said any."""
    said: Any = context.code()
    code = said if isinstance(said, grpc.StatusCode) else _CODES.get(said)
    return code if code is not grpc.StatusCode.OK else None
