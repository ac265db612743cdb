"""Every promise of the store protocol is checked against both implementations."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from controlplane.store import api, etcd, memory
from tests.support import etcd as etcd_process

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[etcd_process.EtcdProcess]:
    """One etcd for all tests that do not harm it."""
    with etcd_process.running() as process:
        yield process


@pytest.fixture
def private_etcd() -> Iterator[etcd_process.EtcdProcess]:
    """An etcd that the test may kill."""
    with etcd_process.running() as process:
        yield process


@contextlib.asynccontextmanager
async def connected(*addresses: str) -> AsyncIterator[etcd.EtcdStore]:
    """An etcd store for the length of a block."""
    store = etcd.EtcdStore(addresses)
    try:
        yield store
    finally:
        await store.close()


class Backend:
    """One store and any number of views of it, as the instances of the control plane have them."""

    def __init__(self, server: etcd_process.EtcdProcess | None) -> None:
        self._server = server
        self.virtual_time = server is None  # tests.support.aio looks at this

    @contextlib.asynccontextmanager
    async def stores(self, count: int) -> AsyncIterator[list[api.Store]]:
        """Made inside the test's event loop."""
        opened: list[api.Store] = [memory.MemoryStore()] * count
        if self._server:
            opened = [etcd.EtcdStore([self._server.endpoint]) for _ in range(count)]
        try:
            yield opened
        finally:
            for store in opened:
                await store.close()

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[api.Store]:
        async with self.stores(1) as (store,):
            yield store


BOTH = ["memory", pytest.param("etcd", marks=pytest.mark.etcd)]


@pytest.fixture(params=BOTH)
def backend(request: pytest.FixtureRequest) -> Backend:
    """A store for tests that keep below their `prefix`."""
    return Backend(request.getfixturevalue("etcd_server") if request.param == "etcd" else None)


@pytest.fixture(params=BOTH)
def private_backend(request: pytest.FixtureRequest) -> Backend:
    """A store for tests that need the whole of it."""
    return Backend(request.getfixturevalue("private_etcd") if request.param == "etcd" else None)


@pytest.fixture
def prefix() -> str:
    """Keys of one test; the etcd is shared."""
    return f"/orch/test-{next(_numbers)}/"
