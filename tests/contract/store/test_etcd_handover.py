"""While the members of etcd hand its leadership to each other, nobody who writes sees anything of it.

Instances write as ours do: each over the member on its own machine, the leader under its fence, and all of them at
once, while another member leads every 200 ms.
"""

import asyncio
import collections
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import grpc.aio
import pytest
from aetcd import rpc

from controlplane.core.trust import etcd_flags
from controlplane.store import api, endpoints, errors
from controlplane.store.etcd import EtcdStore
from tests.support import aio
from tests.support import etcd as etcd_process

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

T = TypeVar("T")

HAMMERED_S = 8.0
MOVED_EVERY_S = 0.2
LONGEST_S = 1.5
WRITERS = 4
"""Of each kind at each instance."""


@pytest.fixture
def members() -> Iterator[list[etcd_process.EtcdProcess]]:
    with etcd_process.cluster(3, flags=(*etcd_flags.ELECTIONS, "--log-level=error")) as started:
        yield started


@contextlib.asynccontextmanager
async def instances(members: Sequence[etcd_process.EtcdProcess]) -> AsyncIterator[list[EtcdStore]]:
    """A store for each member, at home there."""
    addresses = [member.endpoint for member in members]
    opened = [EtcdStore(addresses, home=member.endpoint) for member in members]
    try:
        yield opened
    finally:
        for store in opened:
            await store.close()


class Mover:
    """Hands over from whoever leads to the next one, again and again."""

    def __init__(self, members: Sequence[etcd_process.EtcdProcess]) -> None:
        self._links = [endpoints.Link(member.endpoint, None) for member in members]
        self.moves = 0

    async def run(self) -> None:
        said = [await link.maintenance.Status(rpc.StatusRequest()) for link in self._links]
        ids = [one.header.member_id for one in said]
        for link, own, following in itertools.cycle(zip(self._links, ids, [*ids[1:], ids[0]], strict=True)):
            if (await link.maintenance.Status(rpc.StatusRequest())).leader != own:
                await asyncio.sleep(0.01)
                continue
            with contextlib.suppress(grpc.aio.AioRpcError):  # another one leads meanwhile: the next is asked
                await link.maintenance.MoveLeader(rpc.MoveLeaderRequest(targetID=following), timeout=2)
                self.moves += 1
            await asyncio.sleep(MOVED_EVERY_S)

    async def close(self) -> None:
        for link in self._links:
            await link.close()


class Hammer:
    """What was written and how long it took."""

    def __init__(self) -> None:
        self.written: collections.Counter[bytes] = collections.Counter()
        self.longest: dict[str, float] = {}
        self.counted = 0
        self._clock = asyncio.get_running_loop().time
        self._end = self._clock() + HAMMERED_S
        self._numbers = itertools.count()

    async def timed(self, what: str, call: Awaitable[T]) -> T:
        began = self._clock()
        try:
            return await call
        finally:
            self.longest[what] = max(self.longest.get(what, 0.0), self._clock() - began)

    async def put(
        self, what: str, store: api.Store, key: str, expect: int | None, fence: api.Fence | None = None
    ) -> int:
        """Writes a value that no other write has."""
        value = f"{what} {next(self._numbers)}".encode()
        revision = await self.timed(what, store.commit([api.Put(key=key, value=value, expect=expect)], fence=fence))
        self.written[value] += 1
        return revision

    async def repeatedly(self, step: Callable[[int], Awaitable[None]]) -> None:
        for number in itertools.count():
            if self._clock() >= self._end:
                return
            await step(number)

    async def of_its_own(self, store: api.Store, key: str, fence: api.Fence | None) -> None:
        """One key over the version that it wrote before, as the leader writes a status and a person a spec."""
        version = 0

        async def step(_number: int) -> None:
            nonlocal version
            version = await self.put("over", store, f"{key}/over", version, fence)

        await self.repeatedly(step)

    async def coming_and_going(self, store: api.Store, key: str) -> None:
        """Creates, and removes what it created."""

        async def step(number: int) -> None:
            made = f"{key}/new/{number}"
            version = await self.put("create", store, made, 0)
            await self.timed("remove", store.commit([api.Delete(key=made, expect=version)]))

        await self.repeatedly(step)

    async def whatever_is_there(self, store: api.Store, key: str) -> None:
        await self.repeatedly(lambda _number: self._blindly(store, key))

    async def _blindly(self, store: api.Store, key: str) -> None:
        await self.put("blindly", store, f"{key}/blindly", None)

    async def counting(self, store: api.Store) -> None:
        """Adds one to what all of them add to: who is told that it was written has added exactly one."""

        async def step(_number: int) -> None:
            found = (await store.list("/counter")).entries
            number, version = (int(found[0].value), found[0].version) if found else (0, 0)
            put = api.Put(key="/counter", value=b"%d" % (number + 1), expect=version)
            with contextlib.suppress(errors.Conflict):  # somebody else added before, and it looks again
                await self.timed("count", store.commit([put]))
                self.counted += 1

        await self.repeatedly(step)

    async def leases(self, store: api.Store) -> None:
        kept = await store.grant_lease(30)

        async def step(_number: int) -> None:
            began = self._clock()
            await store.keep_alive(kept)
            granted = await store.grant_lease(30)
            await store.revoke(granted)
            self.longest["lease"] = max(self.longest.get("lease", 0.0), (self._clock() - began) / 3)

        await self.repeatedly(step)


@aio.bounded(90)
async def test_no_write_is_lost_held_up_or_done_twice_while_the_store_is_handed_over(
    members: list[etcd_process.EtcdProcess],
) -> None:
    """Each write is done once, within 1.5 s, and what it says of itself is true."""
    async with instances(members) as (leader, *followers), asyncio.TaskGroup() as group:
        start = (await leader.list("/")).revision
        fence = api.Fence(key="/leader", version=await leader.commit([api.Put(key="/leader", value=b"", expect=0)]))
        mover, hammer = Mover(members), Hammer()
        moving = group.create_task(mover.run())
        async with asyncio.TaskGroup() as writers:
            for number, store in enumerate((leader, *followers)):
                writers.create_task(hammer.counting(store))
                writers.create_task(hammer.leases(store))
                for each in range(WRITERS):
                    key = f"/hammered/{number}-{each}"
                    writers.create_task(hammer.of_its_own(store, key, fence if store is leader else None))
                    writers.create_task(hammer.coming_and_going(store, key))
                    writers.create_task(hammer.whatever_is_there(store, key))
        moving.cancel()
        await mover.close()
        assert mover.moves >= HAMMERED_S / MOVED_EVERY_S / 3, "it was handed over again and again"
        assert await done(leader, "/hammered/", start) == hammer.written
        assert [int(entry.value) for entry in (await leader.list("/counter")).entries] == [hammer.counted]
        assert {what: took_s for what, took_s in hammer.longest.items() if took_s > LONGEST_S} == {}


@aio.bounded(90)
async def test_members_come_and_go_while_the_store_is_handed_over(members: list[etcd_process.EtcdProcess]) -> None:
    """By whichever instance, and none that was asked for is there twice or stays."""
    async with instances(members) as stores, asyncio.TaskGroup() as group:
        own = await settled(stores[0])
        mover, hammer = Mover(members), Hammer()
        moving = group.create_task(mover.run())

        async def come_and_go(number: int) -> None:
            of = stores[number % len(stores)].members
            # Never started. Another one each time: etcd makes an id of the URL and the second, and takes none twice.
            peer = f"http://127.0.0.9:{1024 + number}"
            await hammer.timed("come", of.add_learner(peer))
            (come,) = [one for one in await of.all() if one.id not in own]
            assert (come.peer, come.learner) == (peer, True)
            await hammer.timed("go", of.remove(come))

        await hammer.repeatedly(come_and_go)
        moving.cancel()
        await mover.close()
        assert mover.moves >= HAMMERED_S / MOVED_EVERY_S / 3, "it was handed over again and again"
        assert {one.id for one in await stores[0].members.all()} == own
        assert {what: took_s for what, took_s in hammer.longest.items() if took_s > LONGEST_S} == {}


async def settled(store: EtcdStore) -> set[int]:
    """The ids of the members, as soon as etcd lets others come: when they have known each other for five seconds."""
    own = {one.id for one in await store.members.all()}
    while True:
        try:
            await store.members.add_learner("http://127.0.0.9:1023")
        except (endpoints.Refused, errors.Unavailable):
            await asyncio.sleep(0.2)
        else:
            (come,) = [one for one in await store.members.all() if one.id not in own]
            await store.members.remove(come)
            return own


async def done(store: api.Store, prefix: str, after: int) -> collections.Counter[bytes]:
    """How often each value was written, by the store's own account."""
    found: collections.Counter[bytes] = collections.Counter()
    end = await store.commit([api.Put(key=f"{prefix}end", value=b"")])
    async with contextlib.aclosing(store.watch(prefix, after)) as batches:
        async for batch in batches:
            found.update(event.value for event in batch.events if event.value)
            if batch.revision >= end:
                return found
    raise AssertionError("the watch ended")
