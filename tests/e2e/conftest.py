"""One cluster of three nodes for each file of tests: starting one takes seconds."""

from collections.abc import Iterator

import pytest

from tests.support import cluster


@pytest.fixture(scope="module")
def local() -> Iterator[cluster.LocalCluster]:
    """A cluster that is up, with what one of the examples reserves; tests leave its nodes as they found them and name
    their services after themselves.
    """
    with cluster.running(resources={"n1": ["gpu=0,1"]}) as up:
        yield up


@pytest.fixture
def emptied(local: cluster.LocalCluster) -> Iterator[None]:
    """No service is left afterwards: pages list all tasks that there are."""
    yield
    services = local.orchctl("get", "services", "-o", "name").split()
    if services:
        local.orchctl("delete", "service", *(one.rpartition("/")[2] for one in services))
