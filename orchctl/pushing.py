"""Sends an image of this machine into the cluster: only the blobs that are missing there, each from where it was cut.

The rule: the cluster is asked what it lacks before anything is sent, and again after every cut; so nothing is
remembered here, and a push that was interrupted is gone on with by saying it again.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import TYPE_CHECKING

import grpc

from images import errors as image_errors
from images import progress, reference
from orchctl import client, errors
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from images.image import Image
    from images.manifest import Platform
    from images.store import ImageStore
    from protos.orch.v1.control_pb2_grpc import ControlStub

CHUNK_BYTES = 1 << 20
AT_ONCE = 3
ATTEMPTS = 6
"""Cuts in a row without a byte between them before the push is given up."""
FIRST_WAIT_S = 0.5

_PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION})
"""What another leader, or the next attempt, may not say again."""


def push(
    server: str, store: "ImageStore", name: str, watcher: progress.Progress, *, platform: "Platform | None" = None
) -> pb.Image:
    """The image as the cluster keeps it now: the one for `platform` (default: this machine's)."""
    ref = reference.parse(name)
    if reference.names_registry(name):
        raise errors.InvalidInput(
            f"{name} names a registry, and the cluster is none",
            hint=f"`orchctl image tag {name} {ref.repository.rpartition('/')[2]}` gives it a name of its own",
        )
    return _Push(store, store.resolve(name, platform=platform), ref.familiar, watcher).run(server)


class _Push:
    def __init__(self, store: "ImageStore", image: "Image", name: str, watcher: progress.Progress) -> None:
        self._store = store
        self._image = image
        self._name = name
        self._watcher = watcher
        blobs = [image.config_digest, *(layer.digest for layer in image.layers)]
        self._sizes = {digest: store.size_bytes(digest) for digest in blobs}
        self._manifest = store.read_document(image.digest)

    def run(self, server: str) -> pb.Image:
        """Until the cluster has it. What passes, such as a leader that is lost, is waited for."""
        attempts, lacked = 0, sum(self._sizes.values()) + 1
        while True:
            try:
                leader = client.leader_of(server)
            except errors.Unreachable:
                if not 0 < attempts < ATTEMPTS:
                    raise
                attempts += 1
            else:
                done, lacks = self._attempt(leader, is_last=attempts + 1 >= ATTEMPTS)
                if done is not None:
                    return done
                attempts = 1 if lacks < lacked else attempts + 1
                lacked = min(lacked, lacks)
            time.sleep(FIRST_WAIT_S * 2 ** (attempts - 1))

    def _attempt(self, leader: str, *, is_last: bool) -> tuple[pb.Image | None, int]:
        """The image, or None and the bytes that the cluster still lacks."""
        with client.connect(leader, impatient=False) as stub:
            try:
                return self._once(stub), 0
            except grpc.RpcError as error:
                if is_last or (error.code() not in _PASSING and not _is_blob_gone(error)):
                    raise
                return None, self._lacks(stub)

    def _once(self, stub: "ControlStub") -> pb.Image:
        """All that is missing, then the name."""
        missing = self._missing(stub)
        for digest in self._sizes.keys() - missing.keys():
            self._watcher.step(digest, "exists", 0, None)
        with futures.ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push") as pool:
            for done in [pool.submit(self._send, stub, digest, offset) for digest, offset in missing.items()]:
                done.result()
        request = control.PushImageRequest(name=self._name, manifest=self._manifest)
        return stub.PushImage(request, timeout=client.CALL_TIMEOUT_S).image

    def _missing(self, stub: "ControlStub") -> Mapping[str, int]:
        sizes = [control.BlobSize(digest=digest, size=size) for digest, size in self._sizes.items()]
        answer = stub.MissingBlobs(control.MissingBlobsRequest(blobs=sizes), timeout=client.CALL_TIMEOUT_S)
        return {one.digest: one.offset for one in answer.missing}

    def _lacks(self, stub: "ControlStub") -> int:
        """Bytes that the cluster still lacks; all of them while it does not answer."""
        try:
            missing = self._missing(stub)
        except grpc.RpcError:
            return sum(self._sizes.values())
        return sum(self._sizes[digest] - offset for digest, offset in missing.items())

    def _send(self, stub: "ControlStub", digest: str, offset: int) -> None:
        unreadable: list[Exception] = []
        try:
            stub.PushBlob(self._requests(digest, offset, unreadable), timeout=client.TRANSFER_TIMEOUT_S)
        except grpc.RpcError:
            for error in unreadable:
                raise image_errors.StorageFailed(f"blob {digest} cannot be read: {error}") from error
            raise
        self._watcher.step(digest, "done", self._sizes[digest], self._sizes[digest])

    def _requests(self, digest: str, offset: int, unreadable: list[Exception]) -> Iterator[control.PushBlobRequest]:
        """Runs in a thread of gRPC's, which ends the call for an error here, and says nothing of it."""
        size = self._sizes[digest]
        yield control.PushBlobRequest(start=control.PushBlobStart(digest=digest, size=size, offset=offset))
        try:
            with self._store.open(digest) as file:
                file.seek(offset)
                while chunk := file.read(CHUNK_BYTES):
                    yield control.PushBlobRequest(chunk=chunk)
                    offset += len(chunk)
                    self._watcher.step(digest, "pushing", offset, size)
        except (OSError, image_errors.ImageError) as error:
            unreadable.append(error)
            raise


def _is_blob_gone(error: grpc.RpcError) -> bool:
    """The last step missed a blob: somebody cleared it away between two steps of this push."""
    return bool(error.code() == grpc.StatusCode.NOT_FOUND)
