"""Turns what handlers raise into gRPC status codes with an `orch.v1.Error` beside them. The one place that does.

Two rules. A caller gets one line and a remedy, never a traceback: what nobody expected is logged under a reference
that the answer names. And the whole error fits into gRPC's trailing metadata, however many mistakes there are.

Handlers and everything below them just raise. `Refusals` is an interceptor, so it serves every service of a server.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog

from controlplane.core import request_errors
from controlplane.store import errors as store_errors
from images import errors as image_errors
from protos import answering, headers, pushback, running
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb

MAX_ERROR_BYTES = 4_096
"""gRPC refuses trailing metadata above 8 KiB, and bytes travel as base64."""

MAX_MESSAGE_CHARACTERS = 600

_log = structlog.get_logger()

_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (request_errors.Invalid, grpc.StatusCode.INVALID_ARGUMENT),
    (request_errors.Unknown, grpc.StatusCode.NOT_FOUND),
    (request_errors.NotNow, grpc.StatusCode.FAILED_PRECONDITION),
    (request_errors.Outdated, grpc.StatusCode.ABORTED),
    (request_errors.Unidentified, grpc.StatusCode.UNAUTHENTICATED),
    (request_errors.Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (request_errors.Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (request_errors.TooLate, grpc.StatusCode.DEADLINE_EXCEEDED),
    (request_errors.NotReachable, grpc.StatusCode.UNAVAILABLE),
    (store_errors.Conflict, grpc.StatusCode.ABORTED),
    (store_errors.Temporary, grpc.StatusCode.UNAVAILABLE),
    (image_errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (image_errors.Busy, grpc.StatusCode.UNAVAILABLE),
    (image_errors.StorageFailed, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (image_errors.ImageError, grpc.StatusCode.INVALID_ARGUMENT),
    (LinkLost, grpc.StatusCode.UNAVAILABLE),
)


def code_of(error: Exception) -> grpc.StatusCode | None:
    """The status code of an error that somebody meant; None for one that nobody expected."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), None)


def describe(error: Exception) -> pb.Error:
    """What the caller is told, within MAX_ERROR_BYTES."""
    described = pb.Error(message=_shorten(str(error)))
    if isinstance(error, request_errors.RequestError):
        described.hint = _shorten(error.hint)
        if isinstance(error, request_errors.NotLeader):
            described.leader = error.leader
        if isinstance(error, request_errors.Overloaded):
            described.retry_after = error.retry_after_ms
        _add_mistakes(described, error)
    elif isinstance(error, store_errors.Temporary):
        doubt = isinstance(error, store_errors.Unavailable) and error.ambiguous
        described.hint = (
            "look whether the change is there before repeating it"
            if doubt
            else "nothing was written; running containers are not affected; try again once the store answers"
        )
    return described


def _add_mistakes(described: pb.Error, error: request_errors.RequestError) -> None:
    """As many as fit; the last entry says how many are left out."""
    for told, mistake in enumerate(error.mistakes):
        described.fields.add(object=mistake.object, path=mistake.path, message=_shorten(mistake.message))
        if described.ByteSize() > MAX_ERROR_BYTES - 100:
            del described.fields[-1]
            described.fields.add(message=f"and {len(error.mistakes) - told} more")
            return


def _shorten(text: str) -> str:
    """One line that any terminal can show: callers choose names, and others read them."""
    line = "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in " ".join(text.split()))
    return line if len(line) <= MAX_MESSAGE_CHARACTERS else f"{line[: MAX_MESSAGE_CHARACTERS - 1]}…"


class Refusals(answering.Before):
    """Wraps every handler of a server. `new_reference` names what is logged, such as `7f3a90c1`."""

    def __init__(self, new_reference: Callable[[], str]) -> None:
        self._new_reference = new_reference

    def guard(self, behaviour: answering.Behaviour, method: answering.Method) -> answering.Behaviour:
        async def guarded(request: Any, context: answering.Context) -> Any:
            try:
                return await answering.carry(behaviour, request, context)
            except grpc.aio.AbortError:
                raise
            except (grpc.aio.UsageError, grpc.aio.InternalError):
                if not method.streams:
                    raise
                _log.debug("the caller went away before the stream's end", method=method.path)
            except Exception as error:  # noqa: BLE001 - this is where every error is answered
                await self._refuse(context, method.path, running.leaf(error))

        return guarded

    async def _refuse(self, context: answering.Context, method: str, error: Exception) -> NoReturn:
        code, described = code_of(error), describe(error)
        if code is None:
            reference = self._new_reference()
            _log.error("a request failed unexpectedly", method=method, reference=reference, exc_info=error)
            code = grpc.StatusCode.INTERNAL
            described = pb.Error(
                message=f"an error inside the control plane (reference {reference})",
                hint="its log has the details under this reference; please report them",
            )
        metadata: list[tuple[str, str | bytes]] = [(headers.ERROR, described.SerializeToString())]
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            metadata.append((pushback.HEADER, _pushback(described, context.time_remaining())))
        await context.abort(code, described.message, trailing_metadata=tuple(metadata))


def _pushback(described: pb.Error, left_s: float | None) -> str:
    """When the caller comes back; never, when its deadline were over by then: the refusal says more than that."""
    in_time = left_s is None or described.retry_after < left_s * 1000
    return str(described.retry_after) if described.retry_after and in_time else pushback.NEVER
