"""Says on standard error when an answer is long in coming, and for what this program waits.

One rule: it is said once for each call, after `PATIENCE_S` without any word from the server. A stream that has begun
may be quiet for as long as it likes: that its server is there is seen to by pings (see `client`).
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
        return self._answered(continuation, details, request)

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, request_iterator: Any) -> Any:
        return self._answered(continuation, details, request_iterator)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return _Begun(continuation(details, request), self._timer(details))

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, request_iterator: Any) -> Any:
        return _Begun(continuation(details, request_iterator), self._timer(details))

    def _answered(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Blocks until there is an answer."""
        timer = self._timer(details)
        try:
            return continuation(details, request)
        finally:
            timer.cancel()

    def _timer(self, details: Any) -> threading.Timer:
        timer = threading.Timer(PATIENCE_S, _tell, (self._server, details.method.rpartition("/")[2]))
        timer.daemon = True
        timer.start()
        return timer


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
