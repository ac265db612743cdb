"""The two ends of a stream of bytes, as this package asks for them; files, pipes and sockets' files all fit."""

from __future__ import annotations

import os
from typing import Protocol, runtime_checkable

CHUNK_BYTES = 1 << 20


class Source(Protocol):
    """Where bytes come from: up to `size`, at least one until the end."""

    def read(self, size: int, /) -> bytes: ...


@runtime_checkable
class Skipping(Source, Protocol):
    """A source in which one can pass over bytes without reading them."""

    def skip(self, size: int) -> int:
        """How many of the next `size` bytes there were, and were passed over."""
        ...


class Sink(Protocol):
    """Where bytes go: a file, a pipe, or a blob of a store."""

    def write(self, data: bytes, /) -> int: ...


def write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
