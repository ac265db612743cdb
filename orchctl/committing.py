"""A container's changes on their way into this machine's store, with what is missing there of the image below them.

The rule: a part that is here already is not sent, and what comes is kept only when it has the digest announced.
"""

import contextlib
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import errors as image_errors
from images import manifest, progress
from images.build import committing
from images.image import Layer
from orchctl import client, errors
from protos.orch.v1 import control_pb2 as control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from images.store import ImageStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The parts of an image, which are in the store now."""

    task: str
    base: committing.Base
    layer: Layer


def fetch(server: str, store: "ImageStore", start: control.CommitStart, watcher: progress.Progress) -> Fetched:
    """Call it inside `store.hold()`: nothing names the parts yet."""
    return client.at_leader(server, lambda address: _fetch(address, store, start, watcher))


def _fetch(server: str, store: "ImageStore", start: control.CommitStart, watcher: progress.Progress) -> Fetched:
    outgoing: queue.SimpleQueue[control.CommitRequest | None] = queue.SimpleQueue()
    outgoing.put(control.CommitRequest(start=start))
    with contextlib.ExitStack() as stack:
        stub = stack.enter_context(client.connect(server))
        stack.callback(outgoing.put, None)
        call = stub.Commit(iter(outgoing.get, None))
        stack.callback(call.cancel)
        answers = iter(call)
        offer = _offered(answers, server)
        found = _understood(offer)
        sizes = {one.digest: one.size_bytes for one in (*found.base.layers, found.layer)}
        wish = [digest for digest in sizes if not _is_here(store, digest, watcher)]
        outgoing.put(control.CommitRequest(wish=control.CommitWish(digests=wish)))
        _receive(answers, store, sizes, watcher, server)
        return found


def _is_here(store: "ImageStore", digest: str, watcher: progress.Progress) -> bool:
    if not store.has(digest):
        return False
    watcher.step(digest, "exists", 0, None)
    return True


def _offered(answers: Iterator[control.CommitResponse], server: str) -> control.CommitOffer:
    first = next(answers, None)
    if first is None or first.WhichOneof("message") != "offer":
        raise _cut(server)
    return first.offer


def _understood(offer: control.CommitOffer) -> Fetched:
    layer = Layer(
        digest=offer.layer.digest,
        diff_id=offer.layer.digest,
        size_bytes=offer.layer.size,
        media_type=manifest.OCI_LAYER,
    )
    return Fetched(task=offer.task, base=committing.parse_base(offer.manifest, offer.config), layer=layer)


def _receive(
    answers: Iterator[control.CommitResponse],
    store: "ImageStore",
    sizes: "Mapping[str, int]",
    watcher: progress.Progress,
    server: str,
) -> None:
    """Every blob that is sent, into the store, until the end of the last one."""
    answer = next(answers, None)
    while answer is not None and answer.WhichOneof("message") == "blob":
        digest = answer.blob
        if digest not in sizes:
            raise image_errors.DigestMismatch(f"{digest:.80} came, which is no part of the image; try again")
        with store.writer(digest, sizes[digest]) as blob:
            while (answer := next(answers, None)) is not None and answer.WhichOneof("message") == "chunk":
                blob.write(answer.chunk)
                watcher.step(digest, "fetching", blob.size_bytes, sizes[digest])
            if answer is None:
                raise _cut(server)
        watcher.step(digest, "done", sizes[digest], sizes[digest])
    if answer is None or answer.WhichOneof("message") != "end":
        raise _cut(server)


def _cut(server: str) -> errors.Unreachable:
    return errors.Unreachable(f"the control plane at {server} ended the stream before the image was whole")
