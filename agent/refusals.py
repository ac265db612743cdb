"""Answers in words whatever goes wrong in a call to this node; stands before every service of its server.

Two rules. A caller gets one line and never a traceback: what nobody expected stands in the log of the agent. And a
message that is none of its call's is its sender's mistake, and no trouble of this node's.
"""

from typing import Any, Final

import grpc
import grpc.aio
import structlog

from protos import answering

NOT_EXPECTED: Final = "an error inside the agent of this node; its log has the details"

log = structlog.get_logger()


class Refusals(answering.Before):
    """Of calls with one message, which is all that nodes are asked for."""

    def reader(self, read: answering.Reader) -> answering.Reader:
        return answering.tolerant(read)

    def guard(self, behaviour: answering.Behaviour, method: answering.Method) -> answering.Behaviour:
        assert not method.takes_stream, f"{method.path} takes a stream: nothing here reads one"

        async def guarded(request: Any, context: answering.Context) -> Any:
            if isinstance(request, answering.Unreadable):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, answering.NO_MESSAGE)
            try:
                return await answering.carry(behaviour, request, context)
            except grpc.aio.AbortError:
                raise
            except (grpc.aio.UsageError, grpc.aio.InternalError):
                log.debug("the caller went away before the answer's end", method=method.path)
            except Exception:
                log.exception("a call failed unexpectedly", method=method.path)
                await context.abort(grpc.StatusCode.INTERNAL, NOT_EXPECTED)

        return guarded
