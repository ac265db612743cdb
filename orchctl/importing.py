"""Sends an image archive to the control plane, piece by piece, and shows how far it is."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from orchctl import amounts, client, errors, terminal
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

CHUNK_BYTES = 1 << 20
REDRAW_S = 0.1


def send(server: str, file: str, options: control.ImportImageOptions) -> Sequence[pb.Image]:
    """The images that the archive held, as the control plane keeps them now."""
    if file == "-" and sys.stdin.isatty():
        raise errors.InvalidInput("standard input is a terminal", hint="such as `docker save hello | orchctl …`")
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as archive:
            return _send(server, archive, options)
    except OSError as error:
        raise errors.InvalidInput(f"cannot read {file}: {error.strerror}") from error


def _send(server: str, archive: BinaryIO, options: control.ImportImageOptions) -> Sequence[pb.Image]:
    progress = _Progress(_size(archive))
    unreadable: list[OSError] = []

    def requests() -> Iterator[control.ImportImageRequest]:
        yield control.ImportImageRequest(options=options)
        try:
            while chunk := archive.read(CHUNK_BYTES):
                yield control.ImportImageRequest(chunk=chunk)
                progress.add(len(chunk))
            yield control.ImportImageRequest(end=True)
        except OSError as error:
            # Runs in a thread of gRPC's, which ends the call for it: half an archive must not look like a whole one.
            unreadable.append(error)
            raise

    # The leader takes images in. An archive out of a pipe can be sent once only, so it is asked for before.
    leader = client.leader_of(server)
    try:
        with client.connect(leader) as stub:
            return list(stub.ImportImage(requests(), timeout=client.TRANSFER_TIMEOUT_S).images)
    except errors.OrchctlError:
        for error in unreadable:
            raise error from None
        raise
    finally:
        progress.close()


def _size(archive: BinaryIO) -> int:
    """Of a file; 0 when it comes out of a pipe."""
    return os.fstat(archive.fileno()).st_size


class _Progress:
    """One line in a terminal, nothing elsewhere."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._sent_bytes = 0
        self._drawn_at_s = 0.0
        self._on = sys.stderr.isatty() and terminal.is_terminal()

    def add(self, sent_bytes: int) -> None:
        self._sent_bytes += sent_bytes
        if self._on and time.monotonic() - self._drawn_at_s >= REDRAW_S:
            self._drawn_at_s = time.monotonic()
            of = f" of {amounts.size(self._total_bytes)}" if self._total_bytes else ""
            sys.stderr.write(f"\r\x1b[Ksending {amounts.size(self._sent_bytes)}{of}")
            sys.stderr.flush()

    def close(self) -> None:
        if self._on:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
