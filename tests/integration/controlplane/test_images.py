"""Images: from an archive that a person sends to the blobs that agents fetch."""

import contextlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.store import api, memory
from controlplane.store import errors as store_errors
from images.store import ImageStore
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc
from tests.support import aio, api_world
from tests.support.api_world import refusal


def root_file_system(**files: bytes) -> bytes:
    """A tar of these files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def pieces(archive: bytes, size: int = 1024 * 1024) -> Iterator[bytes]:
    return (archive[start : start + size] for start in range(0, len(archive), size))


async def bring(world: api_world.World, archive: bytes, **options: object) -> pb.ImportImageResponse:
    async def requests() -> AsyncIterator[pb.ImportImageRequest]:
        yield pb.ImportImageRequest(options=pb.ImportImageOptions(**options))  # type: ignore[arg-type]
        for chunk in pieces(archive):
            yield pb.ImportImageRequest(chunk=chunk)
        yield pb.ImportImageRequest(end=True)

    return await world.stub.ImportImage(requests())


async def refused(world: api_world.World, archive: bytes, **options: object) -> tuple[grpc.StatusCode, pb.Error]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await bring(world, archive, **options)
    return refusal(raised.value)


@aio.bounded(30)
async def test_an_imported_image_is_an_object_and_its_blobs_can_be_fetched(tmp_path: Path) -> None:
    archive = root_file_system(data=os.urandom(3 * 1024 * 1024))
    async with api_world.opened(tmp_path, known=()) as world, grpc.aio.insecure_channel(world.address) as channel:
        agent, blobs = dispatcher_pb2_grpc.DispatcherStub(channel), dispatcher_pb2_grpc.BlobsStub(channel)
        (image,) = (await bring(world, archive, name="hello", cmd=["/serve"], env=["A=b"], expose=["8080"])).images
        assert (image.meta.name, image.meta.generation, image.status.layers) == ("hello:latest", 1, 1)
        for reference in ("hello", "docker.io/library/hello:latest", f"hello@{image.status.digest}"):
            resolved = await agent.ResolveImage(wire.ResolveImageRequest(reference=reference))
            assert resolved.digest == image.status.digest

        copy = ImageStore(tmp_path / "node")

        async def fetch(digest: str, offset: int = 0) -> bytes:
            parts = blobs.Fetch(wire.FetchBlobRequest(digest=digest, offset=offset))
            return b"".join([part.chunk async for part in parts])

        assert copy.put_bytes(await fetch(image.status.digest)) == image.status.digest
        for missing in copy.missing(image.status.digest):
            content = await fetch(missing.digest)
            assert content[1000:] == await fetch(missing.digest, 1000), "a fetch can go on where it was cut"
            assert copy.put_bytes(content) == missing.digest
        config = copy.resolve(image.status.digest).config
        assert (config.cmd, config.env, config.exposed_ports) == (("/serve",), ("A=b",), ("8080/tcp",))


@aio.bounded(30)
async def test_the_same_archive_again_changes_nothing_and_another_raises_the_generation(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path, known=()) as world:
        first = await bring(world, root_file_system(a=b"1"), name="hello:1", cmd=["/a"])
        revision = (await world.store.list("/")).revision
        assert await bring(world, root_file_system(a=b"1"), name="hello:1", cmd=["/a"]) == first
        assert (await world.store.list("/")).revision == revision
        other = await bring(world, root_file_system(a=b"2"), name="hello:1", cmd=["/a"])
        assert other.images[0].meta.generation == 2
        assert other.images[0].meta.id == first.images[0].meta.id
        assert other.images[0].status.digest != first.images[0].status.digest


@aio.bounded(30)
async def test_a_removed_image_is_gone_from_the_cluster_and_from_the_disk(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path, known=()) as world, grpc.aio.insecure_channel(world.address) as channel:
        agent, blobs = dispatcher_pb2_grpc.DispatcherStub(channel), dispatcher_pb2_grpc.BlobsStub(channel)
        (image,) = (await bring(world, root_file_system(a=b"1"), name="hello:1")).images
        await world.stub.Delete(pb.DeleteRequest(reference=pb.ObjectReference(kind="image", name="hello:1")))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await agent.ResolveImage(wire.ResolveImageRequest(reference="hello:1"))
        code, error = refusal(raised.value)
        assert code is grpc.StatusCode.NOT_FOUND
        assert error.hint == "`orchctl image push hello:1` brings it"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await blobs.Fetch(wire.FetchBlobRequest(digest=image.status.digest)).read()
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@aio.bounded(30)
async def test_what_cannot_be_imported_is_refused_and_leaves_no_name(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path, known=()) as world:
        plain = root_file_system(a=b"1")
        for archive, options, part in (
            (b"", {"name": "x"}, "empty"),
            (b"no tar at all" * 100, {"name": "x"}, "x"),
            (plain, {"name": "Bad Name"}, "Bad Name"),
            (plain, {"name": f"x@sha256:{'0' * 64}"}, "digest"),
            (plain, {}, "what its image is called"),
        ):
            code, error = await refused(world, archive, **options)
            assert code is grpc.StatusCode.INVALID_ARGUMENT, (options, error)
            assert part in error.message
        assert not (await world.stub.List(pb.ListRequest(kind="image"))).objects
        assert ImageStore(tmp_path / "images").list() == ()


class FailingStore(memory.MemoryStore):
    """A store that can be told to take nothing in."""

    failing = False

    async def commit(self, changes: Sequence[api.Change], *, fence: api.Fence | None = None) -> int:
        if self.failing:
            raise store_errors.Unavailable("the store has no leader")
        return await super().commit(changes, fence=fence)


@aio.bounded(30)
async def test_an_import_that_the_store_refuses_changes_no_name(tmp_path: Path) -> None:
    """A name on the disk means what the cluster says, and no removal takes away what the cluster still names."""
    store = FailingStore()
    async with (
        api_world.opened(tmp_path, store, known=()) as world,
        grpc.aio.insecure_channel(world.address) as channel,
    ):
        (first,) = (await bring(world, root_file_system(a=b"1"), name="hello:1")).images
        store.failing = True
        for name in ("hello:1", "new:1"):
            code, _ = await refused(world, root_file_system(a=b"2"), name=name)
            assert code is grpc.StatusCode.UNAVAILABLE
        store.failing = False
        named = {name: image.digest for image in ImageStore(tmp_path / "images").list() for name in image.names}
        assert named == {"docker.io/library/hello:1": first.status.digest}
        await bring(world, root_file_system(a=b"3"), name="other:1")
        await world.stub.Delete(pb.DeleteRequest(reference=pb.ObjectReference(kind="image", name="other:1")))
        blobs = dispatcher_pb2_grpc.BlobsStub(channel)
        assert await blobs.Fetch(wire.FetchBlobRequest(digest=first.status.digest)).read() is not grpc.aio.EOF


@aio.bounded(30)
async def test_an_import_that_is_cut_leaves_nothing(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path, known=()) as world:
        call = world.stub.ImportImage()
        await call.write(pb.ImportImageRequest(options=pb.ImportImageOptions(name="hello")))
        await call.write(pb.ImportImageRequest(chunk=b"x" * 1024 * 1024))
        await aio.until(lambda: uploads(tmp_path), what="the upload is on the disk")
        call.cancel()
        await aio.until(lambda: not uploads(tmp_path), what="the upload is gone")
        assert not (await world.stub.List(pb.ListRequest(kind="image"))).objects


@aio.bounded(30)
async def test_an_archive_that_ends_too_early_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    """Every byte of a good archive has come, and then the client's stream ends as that of a dead client does."""
    async with api_world.opened(tmp_path, known=()) as world:
        call = world.stub.ImportImage()
        await call.write(pb.ImportImageRequest(options=pb.ImportImageOptions(name="hello")))
        await call.write(pb.ImportImageRequest(chunk=root_file_system(a=b"1")))
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError, match="cut off on its way"):
            await call
        assert not (await world.stub.List(pb.ListRequest(kind="image"))).objects


def uploads(folder: Path) -> list[str]:
    """Open files of this process below the folder's `tmp`; they have no name any more."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(path.readlink()))
    return [link for link in found if link.startswith(f"{folder}/images/tmp/upload-")]
