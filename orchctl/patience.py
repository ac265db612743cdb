"""Says on standard error when an answer is long in coming, and for what this program waits.

One rule: it is said once for each call, after `PATIENCE_S` without any word from the server. A stream that has begun
may be quiet for as long as it likes: that its server is there is seen to by pings (see `client`). Where everything is
sent before there is an answer, that takes its time: who sends is not waiting yet.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from orchctl import terminal

PATIENCE_S = 5.0


class Impatient(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs only
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs only
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs only
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs only
):
    """Watches the blocking calls of a channel."""

    def __init__(self, server: str) -> None:
        self._server = server

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        timer = self._timer(details)
        timer.start()
        try:
            return continuation(details, request)
        finally:
            timer.cancel()

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, request_iterator: Any) -> Any:
        timer = self._timer(details)
        try:
            return continuation(details, _then(request_iterator, timer.start))
        finally:
            timer.cancel()

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return self._begun(continuation(details, request), details)

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, request_iterator: Any) -> Any:
        return self._begun(continuation(details, request_iterator), details)

    def _begun(self, stream: Any, details: Any) -> "_Begun":
        timer = self._timer(details)
        timer.start()
        return _Begun(stream, timer)

    def _timer(self, details: Any) -> threading.Timer:
        timer = threading.Timer(PATIENCE_S, _tell, (self._server, details.method.rpartition("/")[2]))
        timer.daemon = True
        return timer


def _then(requests: Iterator[Any], do: Callable[[], None]) -> Iterator[Any]:
    """The requests; `do` once all of them are on their way."""
    yield from requests
    do()


def told(server: str, call: str) -> str:
    """What is said."""
    return f"no word from the control plane at {server} to {call} for {PATIENCE_S:g} s; still waiting"


def _tell(server: str, call: str) -> None:
    terminal.note(told(server, call))


class _Begun:
    """A stream, until its first message or its end. Everything else is the stream's own."""

    def __init__(self, stream: Any, timer: threading.Timer) -> None:
        self._stream = stream
        self._timer = timer

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._stream)
        finally:
            self._timer.cancel()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
