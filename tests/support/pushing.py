"""Pushes an image as `orchctl image push` does, step by step, and fetches what an instance serves."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio

from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc, dispatcher_pb2_grpc
from protos.orch.v1 import dispatcher_pb2 as wire

MIB = 1024 * 1024


def made(folder: Path, name: str = "web:1", *, size: int = 3 * MIB) -> ImageStore:
    """A person's store with one image."""
    store = ImageStore(folder)
    build_image(store, [File(path="data", content=os.urandom(size))], Config(cmd=("/data",)), name)
    return store


async def send(
    stub: "control_pb2_grpc.ControlAsyncStub",
    store: ImageStore,
    digest: str,
    *,
    offset: int = 0,
    upto: int | None = None,
) -> None:
    """One blob, from an offset on; `upto`: the bytes of it after which the client dies."""
    with store.open(digest) as file:
        file.seek(offset)
        content = file.read() if upto is None else file.read(upto - offset)

    async def requests() -> AsyncIterator[pb.PushBlobRequest]:
        start = pb.PushBlobStart(digest=digest, size=store.size_bytes(digest), offset=offset)
        yield pb.PushBlobRequest(start=start)
        for begin in range(0, len(content), MIB):
            yield pb.PushBlobRequest(chunk=content[begin : begin + MIB])

    await stub.PushBlob(requests())


async def missing(stub: "control_pb2_grpc.ControlAsyncStub", store: ImageStore, name: str) -> dict[str, int]:
    image = store.resolve(name)
    blobs = [image.config_digest, *(layer.digest for layer in image.layers)]
    sizes = [pb.BlobSize(digest=one, size=store.size_bytes(one)) for one in blobs]
    answer = await stub.MissingBlobs(pb.MissingBlobsRequest(blobs=sizes))
    return {one.digest: one.offset for one in answer.missing}


async def push(stub: "control_pb2_grpc.ControlAsyncStub", store: ImageStore, name: str) -> pb.PushImageResponse:
    for digest, offset in (await missing(stub, store, name)).items():
        await send(stub, store, digest, offset=offset)
    manifest = store.read_document(store.resolve(name).digest)
    return await stub.PushImage(pb.PushImageRequest(name=name, manifest=manifest))


async def fetched(address: str, digest: str) -> str:
    """The digest of what an instance serves under that digest."""
    async with grpc.aio.insecure_channel(address) as channel:
        parts = dispatcher_pb2_grpc.BlobsStub(channel).Fetch(wire.FetchBlobRequest(digest=digest))
        content = b"".join([part.chunk async for part in parts])
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
