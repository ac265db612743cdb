"""Hostile calls, frames and requests to the doors of a node, by the hundred, as whoever can reach them."""

import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog.testing

from agent import metrics
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
from protos.orch.v1 import dispatcher_pb2 as wire
from telemetry import health, page
from telemetry.metrics import Reading
from tests.support import aio, doorfuzz, etcd, nodedoorfuzz, trusted
from trust.folder import Folder

SEED = 20260201
CASES = 600
KEPT_MB = 40


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


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@aio.bounded(280)
async def test_whatever_comes_to_the_doors_of_a_node_is_answered_in_words_or_hung_up_on(tmp_path: Path) -> None:
    """Nothing trips, nothing is kept, no file is made, and honest callers are answered afterwards as before."""
    async with node(tmp_path) as made:
        await nodedoorfuzz.honest(made.doors)
        async with nodedoorfuzz.sender(made.doors) as sender:
            await nodedoorfuzz.send(SEED, range(CASES // 3), sender)
            before_mb, before = doorfuzz.memory_mb(), _descriptors()
            await nodedoorfuzz.send(SEED, range(CASES // 3, CASES), sender)
            print(sender.outcomes, before_mb, doorfuzz.memory_mb(), before, _descriptors())
        assert not made.tripped, "\n".join(made.tripped[:5])
        await nodedoorfuzz.honest(made.doors)
