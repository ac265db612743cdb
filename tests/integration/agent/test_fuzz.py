"""Hostile calls, frames and requests to the doors of a node, by the hundred, as whoever can reach them."""

import asyncio
import contextlib
import logging
import random
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog.testing

from agent import imageoptions, metrics, options
from agent.adapters.blobserver import BlobServer, serving
from agent.core import sharing
from agent.fetchers import Fetchers
from agent.holdings import Holdings
from agent.members import Members
from agent.readers import Readers
from agent.rpc import Server
from controlplane import main
from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2
from telemetry import health, page
from telemetry.metrics import Reading
from tests.integration.agent import conftest as machines
from tests.integration.agent.test_trust import imported, joined
from tests.support import aio, api_world, doorfuzz, etcd, instances, nodedoorfuzz, nodesender, trusted
from trust.folder import Folder

SEED = 20260201
CASES = 600
KEPT_MB = 40
KEPT_DESCRIPTORS = 10
"""Of the collectors, threads and channels that come and go in a process."""


@dataclass(slots=True, kw_only=True)
class Node:
    """A node's doors in this process. `tripped`: what was logged as an error."""

    doors: nodedoorfuzz.Doors
    blobs: BlobServer
    tripped: list[str] = field(default_factory=list)


class _Kept(logging.Handler):
    """gRPC and asyncio log what they catch."""

    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        """As logging calls it."""
        if not record.getMessage().startswith("Invalid encoding on"):  # so gRPC says it of a path, and goes on
            self._into.append(self.format(record))


@contextlib.contextmanager
def _noted(into: list[str]) -> Iterator[None]:
    kept = _Kept(into)
    logging.getLogger().addHandler(kept)
    try:
        with structlog.testing.capture_logs(processors=[doorfuzz.Errors(into)]):
            yield
    finally:
        logging.getLogger().removeHandler(kept)


@contextlib.asynccontextmanager
async def node(folder: Path) -> AsyncIterator[Node]:
    """With the doors of n1 open: n2 and cp1 are its members; ann may read how it is, and bob, who is bound, may not."""
    tripped: list[str] = []
    with _noted(tripped):
        async with trusted.cluster(folder) as made:
            own, _ = await made.join("n1"), await made.join("n2")
            await made.join("n3")
            await made.person("ann", "viewer")
            await made.person("bob", "viewer", "shop")
            store, held = ImageStore(folder / "store"), Holdings()
            image = build_image(
                store, [File(path="hello", content=random.Random(1).randbytes(5_000))], name="web:1", config=Config()
            )
            held.add([image.digest, image.config_digest, image.layers[0].digest])

            async def may_fetch(_node: str, _digest: str) -> str:
                return ""

            async def may_read(pem: str) -> str:
                return made.standing.reader_refusal(pem)

            network = wire.NodeNetwork(peers=[wire.NetworkPeer(node_id="n2", trusted_since=1)])
            members = Members(lambda: network)
            readers = Readers(may_read, members, main.now_ms)
            blobs = BlobServer(store, held, sharing.Limits(), Fetchers(may_fetch, members, main.now_ms))
            healthy = health.Health({"": lambda: True}, readers.health_refusal)
            server = Server("n1", own)
            guard = page.Guard(folder=Folder(folder / "n1"), current=lambda: own, refusal=readers.refusal)
            reading = Reading(metrics.REGISTRY)
            async with (
                serving(blobs, "127.0.0.1", etcd.free_port(), server.shown(), healthy) as port,
                page.serving([("127.0.0.1", 0)], reading.text, guard) as (page_port,),
            ):
                layer = image.layers[0].digest
                yield Node(
                    doors=nodedoorfuzz.Doors(
                        host="127.0.0.1",
                        blobs=port,
                        page=page_port,
                        folders={name: Folder(folder / name) for name in ("n2", "n3", "ann", "bob")},
                        node="n2",
                        reader="ann",
                        digest=layer,
                        size_bytes=image.layers[0].size_bytes,
                    ),
                    blobs=blobs,
                    tripped=tripped,
                )


def _descriptors(pid: int | str = "self") -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.slow
@aio.bounded(280)
async def test_whatever_comes_to_the_doors_of_a_node_is_answered_in_words_or_hung_up_on(tmp_path: Path) -> None:
    """Nothing trips, nothing is kept, no file is made, and honest callers are answered afterwards as before."""
    async with node(tmp_path) as made:
        await nodedoorfuzz.honest(made.doors)
        files = _files(tmp_path / "store")
        async with nodedoorfuzz.sender(made.doors) as sender:
            await nodedoorfuzz.send(SEED, range(CASES // 3), sender)
            before_mb, before = doorfuzz.memory_mb(), _descriptors()
            await nodedoorfuzz.send(SEED, range(CASES // 3, CASES), sender)
            assert doorfuzz.memory_mb() - before_mb < KEPT_MB
            gone = lambda: _descriptors() <= before + KEPT_DESCRIPTORS  # noqa: E731
            await aio.until(gone, what="connections have ended", timeout_s=20)
            told = sender.outcomes
        assert not made.tripped, "\n".join(made.tripped[:5])
        assert _files(tmp_path / "store") == files
        await aio.until(lambda: made.blobs.transfers == 0, what="every transfer has ended", timeout_s=20)
        await nodedoorfuzz.honest(made.doors)
    for outcome in ("OK", "INVALID_ARGUMENT", "PERMISSION_DENIED", "NOT_FOUND", "hung up", "page 400", "page 403"):
        assert told[outcome] > CASES / 100, f"{outcome}: too wild, or too mild, to try anything: {told}"
    assert told["page 200"] > 0


@aio.bounded(60)
async def test_who_begins_handshakes_without_end_keeps_neither_descriptors_nor_others_out(tmp_path: Path) -> None:
    """The page takes so many connections of one address, from before their handshakes, and closes the others."""
    async with node(tmp_path) as made:
        before = _descriptors()
        async with contextlib.AsyncExitStack() as stack:
            begun = []
            for _ in range(2 * page.MAX_OF_ADDRESS):
                _, writer = streams = await asyncio.open_connection("127.0.0.1", made.doors.page)
                stack.callback(writer.close)
                begun.append(streams)
            bound = before + 3 * page.MAX_OF_ADDRESS + KEPT_DESCRIPTORS  # ours, and theirs at the page's end
            await aio.until(lambda: _descriptors() <= bound, what="those that are too many are closed")
            for reader, _ in begun[page.MAX_OF_ADDRESS :]:
                assert await reader.read(1) == b"", "it is closed, and without a word"
            assert not begun[0][0].at_eof(), "the first ones have the time of a handshake"
        ended = lambda: _descriptors() <= before + KEPT_DESCRIPTORS  # noqa: E731
        await aio.until(ended, what="what was held is free", timeout_s=20)
        await nodedoorfuzz.honest(made.doors)
        assert not made.tripped, "\n".join(made.tripped[:5])


@pytest.mark.slow
@pytest.mark.root
@aio.bounded(280)
async def test_an_agent_lives_on_whatever_comes_to_its_doors(tmp_path: Path, nodes: list[machines.Node]) -> None:
    """It is the same process, its containers run, and it keeps nothing: neither memory, nor descriptors, nor files."""
    one, socket = nodes[0], f"unix:{tmp_path}/cp.sock"
    async with trusted.cluster(tmp_path, also=socket) as made:
        assert (await joined(made, one, made.tokens["node_token"])).returncode == 0
        await made.person("ann", "viewer")
        await made.person("bob", "viewer", "shop")
        await made.join("n3")
        one.options = ["--trust", str(one.state / "trust")]
        pid = one.start(socket)
        await imported(made)
        async with made.control(made.admin) as stub:
            service = api_world.service(image="sleep:1", replicas=1)
            await stub.Apply(pb.ApplyRequest(objects=[objects_pb2.Object(service=service)]))
            await instances.settled(stub, "web")
        running = one.containers()
        layer = ImageStore(tmp_path / "images").resolve("sleep:1").layers[0]
        doors = nodedoorfuzz.Doors(
            host=one.address,
            blobs=imageoptions.BLOB_PORT,
            page=options.METRICS_PORT,
            folders={name: Folder(tmp_path / name) for name in ("cp", "n3", "ann", "bob")},
            node="cp",
            reader="ann",
            digest=layer.digest,
            size_bytes=layer.size_bytes,
        )
        await _sent(one, doors, range(100))
        files, before, before_mb = _files(one.state), _descriptors(pid), doorfuzz.memory_mb(pid)
        await _sent(one, doors, range(100, CASES))
        assert one.agent is not None
        assert one.agent.poll() is None, one.log()[-3_000:]
        assert one.agent.pid == pid
        assert one.containers() == running
        assert doorfuzz.memory_mb(pid) - before_mb < KEPT_MB
        gone = lambda: _descriptors(pid) <= before + KEPT_DESCRIPTORS  # noqa: E731
        await aio.until(gone, what="connections have ended", timeout_s=20)
        assert _files(one.state) - files == set()
        assert not [line for line in one.log().splitlines() if '"level": "error"' in line]


async def _sent(one: machines.Node, doors: nodedoorfuzz.Doors, numbers: range) -> None:
    """From the network that the node is in."""
    argv = [sys.executable, "-m", "tests.support.nodesender", *nodesender.arguments(doors, SEED, numbers)]
    process = await asyncio.create_subprocess_exec(
        *("nsenter", f"--net={one.namespace}", *argv),
        cwd=machines.REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode(errors="replace")[-4_000:]
