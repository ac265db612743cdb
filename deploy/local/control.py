"""Asking a supervisor to pull the plug of a machine, or to put it in again: a JSON line each way on a Unix socket."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from deploy.local import errors

_SOCKET: Final = "control.sock"
_TIMEOUT_S: Final = 10.0
_LIMIT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`verb` is `kill` or `start`."""

    verb: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An empty error is a yes."""

    error: str = ""


async def serve(
    folder: Path, answer: Callable[[Request], Awaitable[Answer]], *, listening: Callable[[], None] = lambda: None
) -> None:
    """Until cancelled; `listening` is called when it can be asked."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closing(writer), asyncio.timeout(_TIMEOUT_S):
            try:
                reply = await answer(Request(**json.loads(await reader.readline())))
            except (ValueError, TypeError) as error:
                reply = Answer(error=f"not a request: {error}")
            writer.write(json.dumps(asdict(reply)).encode() + b"\n")
            await writer.drain()

    with _short_path(folder) as path:
        server = await asyncio.start_unix_server(handle, path, limit=_LIMIT_BYTES)
    listening()
    async with server:
        await server.serve_forever()


def ask(folder: Path, request: Request) -> None:
    """LocalError when the supervisor says no, or is not there."""
    with _short_path(folder) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(path)
            connection.sendall(json.dumps(asdict(request)).encode() + b"\n")
            with connection.makefile() as reader:
                answer = Answer(**json.loads(reader.readline()))
        except (OSError, ValueError) as error:  # ValueError: it hung up without a word
            raise errors.LocalError(
                f"the cluster's supervisor does not answer: {error}", hint="orchctl cluster status"
            ) from error
    if answer.error:
        raise errors.LocalError(answer.error)


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """The path of a Unix socket has at most 107 bytes (unix(7)); the folder's may have more."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
