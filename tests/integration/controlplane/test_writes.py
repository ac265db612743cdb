"""Writes that others come between."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from controlplane.api.writes import Writes
from controlplane.store import api, memory, typed
from controlplane.store import errors as store_errors
from controlplane.store.cache import Cache
from protos import kinds
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2
from tests.support import aio, build
from tests.support.build import NOW_MS


class Contested(memory.MemoryStore):
    """The first commits lose against somebody else's; what is `hidden` has been removed a moment ago."""

    def __init__(self, losses: int = 0) -> None:
        super().__init__()
        self.losses = losses
        self.hidden = ""

    async def commit(self, changes: Sequence[api.Change], *, fence: api.Fence | None = None) -> int:
        if self.losses:
            self.losses -= 1
            raise store_errors.Conflict(["somebody was faster"])
        return await super().commit(changes, fence=fence)

    async def list(self, prefix: str) -> api.Listing:
        found = await super().list(prefix)
        left = [entry for entry in found.entries if entry.key != self.hidden]
        return api.Listing(entries=tuple(left), revision=found.revision)


class Registry:
    """Tells what one image means, and counts who asks."""

    def __init__(self) -> None:
        self.asked: list[Collection[str]] = []

    async def resolve(self, images: Collection[str]) -> Mapping[str, str]:
        self.asked.append(set(images))
        return {image: f"sha256:{'a' * 64}" for image in images if "silent" not in image}


@contextlib.asynccontextmanager
async def writes(store: Contested, outside: Registry | None = None) -> AsyncIterator[tuple[Writes, Cache]]:
    numbers = itertools.count(1)
    cache = Cache(store)
    async with asyncio.TaskGroup() as group:
        follower = group.create_task(cache.run())
        yield (
            Writes(store, cache, now_ms=lambda: NOW_MS, new_id=lambda: f"id-{next(numbers)}", outside=outside),
            cache,
        )
        follower.cancel()


def service(name: str, image: str) -> objects_pb2.Service:
    template = objects_pb2.TaskTemplate(container=objects_pb2.Container(image=image))
    return objects_pb2.Service(
        meta=objects_pb2.Meta(name=name), spec=objects_pb2.ServiceSpec(template=template, replicas=1)
    )


@aio.bounded(20)
async def test_an_apply_that_loses_asks_the_registries_no_second_time() -> None:
    """Each answer may take seconds, also that of one which does not tell, and its client has few."""
    store, registry = Contested(), Registry()
    async with writes(store, registry) as (made, cache):
        await store.commit([typed.overwrite(build.node("n1"))])
        await cache.wait_for(1, 5)
        store.losses = 3
        images = ["reg.lan/a:1", "reg.silent/b:1"]
        objects = [kinds.wrap(service(name, image)) for name, image in zip("ab", images, strict=True)]
        results = (await made.apply(pb.ApplyRequest(objects=objects))).results
        assert registry.asked == [set(images)]
        assert [dict(one.object.service.spec.images) for one in results] == [{images[0]: f"sha256:{'a' * 64}"}, {}]


@aio.bounded(20)
async def test_a_service_that_goes_meanwhile_keeps_no_other_from_being_spread() -> None:
    store = Contested()
    async with writes(store) as (made, cache):
        values: list[kinds.StoredObject] = [build.node(name, since=1) for name in ("n1", "n2")]
        for name in ("a", "b"):
            uneven = build.service(name, replicas=4)
            uneven.status.settled, uneven.status.observed_generation = True, uneven.meta.generation
            uneven.status.rollout.state = objects_pb2.ROLLOUT_STATE_COMPLETED
            revision = build.revision(uneven)
            tasks = [build.task(slot, of=name, node="n1", revision_id=revision.meta.id) for slot in (1, 2, 3, 4)]
            values += [uneven, revision, *tasks]
        revision_number = await store.commit([typed.overwrite(value) for value in values])
        await cache.wait_for(revision_number, 5)
        shown = await made.rebalance(pb.RebalanceRequest(dry_run=True))
        assert len(shown.moves) == 4
        assert (await store.list("/orch/")).revision == revision_number, "what is only shown writes nothing"
        store.hidden = kinds.key(build.service("a"))
        answer = await made.rebalance(pb.RebalanceRequest())
        assert answer.moves == shown.moves
        other = (await store.list(kinds.key(build.service("b")))).entries[0]
        stored = typed.decode(other.key, other.value, other.version)
        assert isinstance(stored, objects_pb2.Service)
        assert stored.spec.rebalance_asked_at == NOW_MS
