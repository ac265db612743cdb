"""Blobs on their way to a node: whom it asks, and what a download that is cancelled leaves behind."""

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from agent.adapters import blobplaces
from agent.adapters.downloads import Downloads
from agent.errors import Temporary
from agent.rpc import BUSY, FAILED, LACKING
from images import blobs, digest
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.support.aio import bounded, until

CONTENT = b"layer " * 400_000
DIGEST = digest.of_bytes(CONTENT)
OTHER = digest.of_bytes(CONTENT[1:])


Answer = Callable[[Sequence[str]], dpb.FindBlobResponse]


class Cluster:
    """`answer` is what the leader says to a question; `says` why a node does not give. The rest is given."""

    def __init__(self, answer: Answer, says: dict[str, str] | None = None) -> None:
        self._answer = answer
        self._says = says or {}
        self.questions: list[tuple[str, ...]] = []
        self.asked: list[str] = []

    async def resolve(self, reference: str) -> str:
        raise AssertionError(f"nobody asks what {reference} means here")

    async def find(self, digest: str, failed: Sequence[str]) -> dpb.FindBlobResponse:
        del digest
        self.questions.append(tuple(failed))
        return self._answer(failed)

    async def fetch(self, digest: str, offset: int, address: str = "") -> AsyncIterator[bytes]:
        self.asked.append(address)
        content = CONTENT if digest == DIGEST else CONTENT[1:]
        if address in self._says:
            raise Temporary(f"{address}: no", reason=self._says[address])
        for begin in range(offset, len(content), 1024 * 1024):
            await asyncio.sleep(0)
            yield content[begin : begin + 1024 * 1024]


def here(_failed: Sequence[str]) -> dpb.FindBlobResponse:
    return dpb.FindBlobResponse(here=True)


def nobody(_failed: Sequence[str]) -> dpb.FindBlobResponse:
    return dpb.FindBlobResponse()


def first_of(*addresses: str) -> Answer:
    """A leader that names the first of these nodes which has not failed, else itself."""

    def answer(failed: Sequence[str]) -> dpb.FindBlobResponse:
        left = [address for address in addresses if address not in failed]
        return dpb.FindBlobResponse(addresses=left[:1], here=not left)

    return answer


def downloads(folder: Path, cluster: Cluster) -> Downloads:
    return Downloads(ImageStore(folder), cluster, lambda _digest: None)


# Places ---------------------------------------------------------------------------------------------------------------


@bounded(300, virtual_time=True)
async def test_a_leader_that_answers_nothing_at_once_is_not_asked_in_a_circle() -> None:
    """One that does not lead any more answers so."""
    cluster = Cluster(nobody)
    with pytest.raises(Temporary, match="nobody who has"):
        await anext(blobplaces.Places(cluster).of(DIGEST, len(CONTENT), ()))
    assert len(cluster.questions) <= blobplaces.LONGEST_WAIT_S / blobplaces.PAUSE_S + 2


@bounded(300, virtual_time=True)
async def test_a_leader_that_names_only_those_who_have_failed_is_not_believed_for_ever() -> None:
    cluster = Cluster(lambda _failed: dpb.FindBlobResponse(addresses=["a", "b"]))
    places = blobplaces.Places(cluster)
    places.leave_out(["a", "b"], 1_000)
    with pytest.raises(Temporary, match="nobody who has"):
        await anext(places.of(DIGEST, len(CONTENT), ()))
    assert len(cluster.questions) <= blobplaces.LONGEST_WAIT_S / blobplaces.PAUSE_S + 2


@bounded(300, virtual_time=True)
async def test_whoever_is_left_out_comes_back_after_a_while() -> None:
    places = blobplaces.Places(Cluster(first_of("a")))
    places.leave_out(["a"], 10)
    places.leave_out(["a"], 5)
    assert await anext(places.of(DIGEST, len(CONTENT), ())) == blobplaces.CONTROL_PLANE
    await asyncio.sleep(11)
    assert await anext(places.of(DIGEST, len(CONTENT), ())) == "a"


@pytest.mark.parametrize(
    ("failing", "asked"),
    [
        pytest.param(FAILED, ["bad", "good", "good"], id="not-reached"),  # each time would cost seconds again
        pytest.param(LACKING, ["bad", "good", "bad", "good"], id="without-the-blob"),
    ],
)
@bounded(20)
async def test_who_could_not_be_reached_is_not_asked_again_and_who_lacked_a_blob_is(
    tmp_path: Path, failing: str, asked: list[str]
) -> None:
    cluster = Cluster(first_of("bad", "good"), {"bad": failing})
    one = downloads(tmp_path, cluster)
    await one.fetch(DIGEST, len(CONTENT))
    await one.fetch(OTHER, len(CONTENT) - 1)
    assert cluster.asked == asked


@bounded(20)
async def test_a_busy_node_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again soon, also for the same blob."""
    monkeypatch.setattr(blobplaces, "BUSY_S", 0.05)
    says = {"a": BUSY}

    def answer(failed: Sequence[str]) -> dpb.FindBlobResponse:
        if "a" in failed:
            says.clear()
            return dpb.FindBlobResponse()
        return dpb.FindBlobResponse(addresses=["a"])

    cluster = Cluster(answer)
    cluster._says = says
    await downloads(tmp_path, cluster).fetch(DIGEST, len(CONTENT))
    assert cluster.asked == ["a", "a"]


@bounded(20)
async def test_a_blob_of_two_images_is_fetched_once(tmp_path: Path) -> None:
    """Both wait for it, and one that gives up does not stop it for the other."""
    cluster = Cluster(here)
    one = downloads(tmp_path, cluster)
    waiting = [asyncio.ensure_future(one.fetch(DIGEST, len(CONTENT))) for _ in range(3)]
    await until(lambda: bool(cluster.asked), what="it has begun", every_s=0)
    waiting[1].cancel()
    await asyncio.gather(waiting[0], waiting[2])
    assert (len(cluster.questions), len(cluster.asked)) == (1, 1)


# Cancelled ------------------------------------------------------------------------------------------------------------


class SlowDisk(ImageStore):
    """Each write waits for the gate."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = threading.Event()
        self.writing = threading.Event()
        self.written = 0

    @contextlib.contextmanager
    def writer(self, digest: str | None = None, size_bytes: int | None = None) -> Iterator[blobs.Writer]:
        with super().writer(digest, size_bytes) as blob:
            write = blob.write

            def slow(data: bytes | memoryview) -> int:
                self.writing.set()
                self.gate.wait(10)
                try:
                    return write(data)
                finally:
                    self.written += 1

            blob.write = slow  # type: ignore[method-assign]
            yield blob


@bounded(20)
async def test_a_cancelled_download_writes_into_no_file_that_is_opened_after_it(tmp_path: Path) -> None:
    """A thread that is still writing has a number: what is opened next would have the same one."""
    store = SlowDisk(tmp_path / "store")
    fetching = asyncio.ensure_future(Downloads(store, Cluster(here), lambda _digest: None).fetch(DIGEST, len(CONTENT)))
    await until(store.writing.is_set, what="a thread writes")
    fetching.cancel()
    for _ in itertools.repeat(None, 20):
        await asyncio.sleep(0)
    with contextlib.ExitStack() as files:
        opened = [files.enter_context((tmp_path / f"other-{n}").open("wb", buffering=0)) for n in range(8)]
        store.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await until(lambda: store.written > 0, what="the thread has written")
        assert [os.fstat(file.fileno()).st_size for file in opened] == [0] * 8
    assert list(store.tmp.iterdir()) == [], "and nothing of it stays"
