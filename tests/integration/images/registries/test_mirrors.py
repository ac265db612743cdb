"""Mirrors that have everything, cut, lie or are busy: the order of the configuration holds, and nobody lies for others."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from images import errors as image_errors
from images.registry import config, pull, registries
from images.store import ImageStore
from tests.integration.images.registries.support import filled, path_of
from tests.support import stubregistry
from tests.support.aio import bounded
from tests.unit.images import makers

Door = Callable[..., registries.Registries]
LAYERS = [makers.archive(makers.member("f", content=text * 9000)) for text in (b"one", b"two", b"three", b"four")]


@contextlib.asynccontextmanager
async def places(count: int) -> AsyncIterator[tuple[list[stubregistry.Stub], dict[str, config.Registry]]]:
    """So many mirrors and then the registry itself, all with the same image; and the configuration that says so."""
    async with contextlib.AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(stubregistry.running()) for _ in range(count + 1)]
        for stub in stubs:
            filled(stub, *LAYERS)
        mirrors = tuple(config.Mirror(host=stub.address) for stub in stubs[:-1])
        yield stubs, {stubs[-1].address: config.Registry(mirrors=mirrors)}


def blobs_asked(stub: stubregistry.Stub) -> list[str]:
    return [line for line in stub.lines() if "/blobs/" in line]


@bounded(60)
async def test_a_mirror_that_has_everything_is_the_only_one_asked(store: ImageStore, door: Door) -> None:
    """One blob after the other, so that each could go elsewhere."""
    async with places(2) as (stubs, hosts), door(hosts, limits=config.Limits(downloads=1)) as shared:
        await pull.pull(store, f"{stubs[-1].address}/web:1", registries=shared)
        assert len(blobs_asked(stubs[0])) == len(LAYERS) + 1
        assert [line for stub in stubs[1:] for line in stub.lines()] == []
