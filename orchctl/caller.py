"""Says with every call who asks, for the record, where no certificate says it: nobody verifies this. And which control
planes are known here, so that the answer brings news of them.
"""

import getpass
import os
import socket
from collections.abc import Callable
from typing import Any

import grpc

from orchctl import servers
from protos import headers


class Introduced(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs only
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs only
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs only
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs only
):
    """Puts the caller's name beside the blocking calls of a channel."""

    def __init__(self) -> None:
        known = servers.said()
        self._said = [(headers.ACTOR, name()), *([(headers.SERVERS, known)] if known else [])]

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        call = continuation(self._introduced(details), request)
        if len(self._said) > 1:
            for key, value in call.initial_metadata() or ():
                if key == headers.SERVERS:
                    servers.hear(value)
        return call

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(self._introduced(details), request)

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, request_iterator: Any) -> Any:
        return continuation(self._introduced(details), request_iterator)

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, request_iterator: Any) -> Any:
        return continuation(self._introduced(details), request_iterator)

    def _introduced(self, details: Any) -> Any:
        return details._replace(metadata=(*(details.metadata or ()), *self._said))


def name() -> str:
    """`ann@laptop`, in signs that metadata can carry."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return "".join(sign for sign in f"{user}@{socket.gethostname()}" if "!" <= sign <= "~")
