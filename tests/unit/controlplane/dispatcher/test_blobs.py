"""What the leader remembers of who has which blob."""

import asyncio

from controlplane.dispatcher.blobs import LONGEST_S, PATIENCE_S, SLOW_BYTES_PER_S, BlobBook, Place
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support.aio import bounded

BLOB = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"


def book(*without: str) -> BlobBook:
    """Every node serves at its own name, but those that do not."""
    return BlobBook(lambda node: Place(address="" if node in without else f"{node}:1"))


async def ask(book: BlobBook, node: str, *failed: str, here: bool = True, size_bytes: int = 0) -> wire.FindBlobResponse:
    request = wire.FindBlobRequest(digest=BLOB, node_id=node, failed=failed)
    return await book.find(request, here=lambda: here, size_bytes=size_bytes)


@bounded(20, virtual_time=True)
async def test_whoever_waits_is_answered_as_soon_as_somebody_has_it() -> None:
    one = book()
    assert (await ask(one, "n1")).here
    assert (await ask(one, "n2")).here
    waiting = asyncio.ensure_future(ask(one, "n3"))
    await asyncio.sleep(1)
    assert not waiting.done()
    one.note("n1", wire.BlobsHeld(added=[BLOB]))
    assert list((await waiting).addresses) == ["n1:1"]


@bounded(20, virtual_time=True)
async def test_a_question_that_nobody_can_answer_comes_back_empty() -> None:
    began = asyncio.get_running_loop().time()
    assert await ask(book(), "n1", here=False) == wire.FindBlobResponse()
    assert asyncio.get_running_loop().time() - began == PATIENCE_S


@bounded(200, virtual_time=True)
async def test_a_node_that_never_says_anything_keeps_nobody_waiting_for_ever() -> None:
    one = book()
    await ask(one, "n1")
    await ask(one, "n2")
    await asyncio.sleep(LONGEST_S)
    assert (await ask(one, "n3")).here


@bounded(20, virtual_time=True)
async def test_nobody_is_sent_to_a_node_that_has_gone_or_serves_nothing_or_to_himself() -> None:
    one = book("mute")
    for node in ("n1", "n2", "mute"):
        one.note(node, wire.BlobsHeld(added=[BLOB]))
    assert list((await ask(one, "n1")).addresses) == ["n2:1"]
    one.forget("n2")
    assert one.addresses(BLOB) == ["n1:1"]
    one.note("n1", wire.BlobsHeld(removed=[BLOB]))
    assert (await ask(one, "n3")).here


@bounded(20, virtual_time=True)
async def test_a_node_that_asks_twice_for_a_blob_counts_once() -> None:
    """Both questions wait and are answered; what is counted is what is released again."""
    one = book()
    waiting = [asyncio.ensure_future(ask(one, "n2", here=False)) for _ in range(2)]
    await asyncio.sleep(1)
    one.note("n1", wire.BlobsHeld(added=[BLOB]))
    for each in waiting:
        assert list((await each).addresses) == ["n1:1"]
    one.note("n2", wire.BlobsHeld(added=[BLOB]))
    one.note("n2", wire.BlobsHeld(removed=[BLOB]))
    for node in ("n3", "n4", "n5"):
        assert list((await ask(one, node)).addresses) == ["n1:1"]


@bounded(20, virtual_time=True)
async def test_a_node_that_is_cut_off_from_the_others_gets_it_from_here() -> None:
    """It cannot try all of them first: there may be hundreds."""
    one = book()
    for number in range(200):
        one.note(f"n{number}", wire.BlobsHeld(added=[BLOB]))
    assert not (await ask(one, "far", "n1:1", "n2:1")).here
    assert (await ask(one, "far", "n1:1", "n2:1", "n3:1")).here


@bounded(2_000, virtual_time=True)
async def test_a_large_layer_counts_for_as_long_as_it_takes() -> None:
    """2 GiB go through in minutes: two copies leave the control plane, and not two more each minute."""
    one, size_bytes = book(), 2 * 1024**3
    for node in ("n1", "n2"):
        assert (await ask(one, node, size_bytes=size_bytes)).here
    await asyncio.sleep(LONGEST_S + 60)
    assert not (await ask(one, "n3", size_bytes=size_bytes)).here
    await asyncio.sleep(size_bytes / SLOW_BYTES_PER_S)
    assert (await ask(one, "n3", size_bytes=size_bytes)).here


@bounded(2_000, virtual_time=True)
async def test_what_was_given_anew_does_not_end_with_what_was_given_before() -> None:
    one = book()
    await ask(one, "n1")
    await ask(one, "n2")
    await asyncio.sleep(LONGEST_S - 10)
    await ask(one, "n1")
    await asyncio.sleep(20)
    assert (await ask(one, "n3")).here, "the second has ended"
    assert not (await ask(one, "n4")).here, "the first has asked again a moment ago"


def test_the_scheduler_knows_what_nodes_have_as_long_as_they_are_there() -> None:
    """Until they say otherwise, or leave; whoever comes then begins with nothing."""
    one = book()
    one.note("n1", wire.BlobsHeld(added=[BLOB, OTHER]))
    one.note("n2", wire.BlobsHeld(added=[BLOB]))
    one.note("n1", wire.BlobsHeld(removed=[OTHER]))
    assert OTHER not in one.holders
    numbers = one.holders.numbers(["n1", "n2", "n3"])
    assert one.holders.where(BLOB, numbers).tolist() == [True, True, False]
    one.forget("n1")
    one.note("n3", wire.BlobsHeld(added=[OTHER]))
    numbers = one.holders.numbers(["n1", "n2", "n3"])
    assert one.holders.where(BLOB, numbers).tolist() == [False, True, False]
    assert one.holders.where(OTHER, numbers).tolist() == [False, False, True]
