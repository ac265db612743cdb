"""An agent's commits as a leader sees them, and podman's of the same changes."""

import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import sweep
from images import archive, export
from images.build import committing
from images.image import Image, Layer
from images.manifest import OCI_LAYER
from images.store import ImageStore
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.support.fake_leader import FakeLeader

CGROUP = f"/orch/test-podman-commit-{os.getpid()}"
CREATED = "2026-01-01T00:00:00Z"
_CONF = (
    '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]\n[engine]\nevents_logger = "none"\n'
)
_ids = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What has come."""

    offer: cpb.CommitOffer
    blobs: dict[str, bytes]

    def into(self, store: ImageStore, name: str) -> Image:
        """The image in a store that has the layers below."""
        size, digest = self.offer.layer.size, self.offer.layer.digest
        with store.writer(digest, size) as blob:
            blob.write(self.blobs[digest])
        layer = Layer(digest=digest, diff_id=digest, size_bytes=size, media_type=OCI_LAYER)
        base = committing.parse_base(self.offer.manifest, self.offer.config)
        return committing.add(store, base, layer, said=committing.Said(), created=CREATED, names=(name,))


async def opened(leader: FakeLeader, name: str, **more: Any) -> tuple[AsyncIterator[dpb.StreamFrame], Any]:
    """A stream of a commit, and where input for it goes."""
    request = dpb.TaskCommitRequest(task_id=name, **more)
    return await leader.open_stream(dpb.OpenStream(stream_id=f"c{next(_ids)}", commit=request))


async def offered(frames: AsyncIterator[dpb.StreamFrame]) -> cpb.CommitOffer:
    """The first message."""
    first = await anext(frames)
    assert first.commit.HasField("offer"), first
    return first.commit.offer


async def refused(frames: AsyncIterator[dpb.StreamFrame]) -> str:
    """Why there is none."""
    first = await anext(frames)
    assert first.HasField("error"), first
    return first.error.message


async def take(leader: FakeLeader, name: str, *wish: str, **more: Any) -> Committed:
    """The changes, and the other blobs in `wish`."""
    frames, send = await opened(leader, name, **more)
    offer = await offered(frames)
    wished = cpb.CommitWish(digests=[offer.layer.digest, *wish])
    await send.put(dpb.StreamFrame(wish=wished))
    blobs: dict[str, bytearray] = {}
    async for frame in frames:
        match frame.commit.WhichOneof("message"):
            case "blob":
                last = blobs[frame.commit.blob] = bytearray()
            case "chunk":
                last += frame.commit.chunk
            case "end":
                return Committed(offer=offer, blobs={digest: bytes(data) for digest, data in blobs.items()})
            case other:
                raise AssertionError(f"{other}: {frame}")
    raise AssertionError("the stream was cut")


@contextmanager
def podman() -> Iterator["Podman"]:
    """podman with a store of its own; its paths may have 50 characters, so `tmp_path` is too long."""
    with tempfile.TemporaryDirectory(prefix="pytest-podman-", ignore_cleanup_errors=True) as folder:
        made = Podman(Path(folder))
        try:
            yield made
        finally:
            made.run("rm", "--force", "--all", "--time=0")
            sweep.remove_cgroups(CGROUP)


class Podman:
    """Debian's, with runc: crun refuses machines that have both versions of cgroups."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "containers.conf").write_text(_CONF)
        places = [f"--{name}={folder / name}" for name in ("root", "runroot", "tmpdir")]
        self._base = ["podman", *places, "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=runc"]

    def run(self, *arguments: str) -> str:
        environment = {**os.environ, "CONTAINERS_CONF": str(self._folder / "containers.conf")}
        done = subprocess.run(
            [*self._base, *arguments],
            cwd=self._folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout.strip()

    def load(self, store: ImageStore, image: Image) -> None:
        """Give it an image of ours."""
        path = self._folder / "in.tar"
        with path.open("wb") as file:
            export.export_archive(store, image, file, "docker")
        self.run("load", "--input", str(path))

    def config(self, name: str) -> dict[str, Any]:
        """How an image of it starts."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--type=image", name))[0]["Config"]
        return found

    def commit(self, name: str, command: Sequence[str], store: ImageStore, *options: str) -> Image:
        """Run a command in a container of an image, and have what it has changed as an image in a store of ours."""
        self.run("run", "--name=box", "--network=none", f"--cgroup-parent={CGROUP}", name, *command)
        self.run("commit", "--quiet", "--format=oci", *options, "box", "localhost/committed:1")
        path = self._folder / "out.tar"
        self.run("save", "--format=oci-archive", "--output", str(path), "localhost/committed:1")
        return archive.import_archive(store, path, name="podman:1")
