"""Every promise of the store protocol is checked against both implementations."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from controlplane.store import api, etcd, memory
from tests.support import etcd as etcd_process

OpenStore = Callable[[], contextlib.AbstractAsyncContextManager[api.Store]]
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


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    """Opens a client inside the test's event loop: `async with open_store() as store`."""
    endpoints = [request.getfixturevalue("etcd_server").endpoint] if request.param == "etcd" else []

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[api.Store]:
        store: api.Store = etcd.EtcdStore(endpoints) if endpoints else memory.MemoryStore()
        try:
            yield store
        finally:
            await store.close()

    return opened


@pytest.fixture
def prefix() -> str:
    """Keys of one test; the etcd is shared."""
    return f"/orch/test-{next(_numbers)}/"
