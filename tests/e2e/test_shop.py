"""The example of a shop: four services that find each other by name, two networks, one door between them."""

import http.client
import re
from collections.abc import Iterator

import pytest

from tests.support import cluster
from tests.support.cluster import LocalCluster, names_of
from tests.support.waiting import until

pytestmark = pytest.mark.root

FOLDER = "manifests/examples/shop"
PORT = 18082
REPLICAS = {"web": 2, "api": 2, "cache": 1, "database": 1}


@pytest.fixture(scope="module")
def shop() -> Iterator[LocalCluster]:
    """As its manifests' comment says that it is started."""
    with cluster.running() as up:
        up.orchctl("apply", "-f", FOLDER)
        for service, replicas in REPLICAS.items():
            up.await_whole(service, replicas)
        yield up
        up.orchctl("delete", "-f", FOLDER)
        assert not up.tasks("web")


def ask(address: str) -> tuple[int, str]:
    """The status and the text of one request from outside."""
    connection = http.client.HTTPConnection(address, PORT, timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def in_task(shop: LocalCluster, service: str, command: str, *, code: int = 0) -> str:
    """What a shell in the service's first task says."""
    name = shop.tasks(service)[0].meta.name
    return shop.orchctl("exec", "-n", "shop", name, "--", "sh", "-c", command, code=code)


def test_every_node_answers_with_what_all_four_say(shop: LocalCluster) -> None:
    """Each line begins with the service and names the task that wrote it, and both counters count on."""
    visits, orders = [], []
    for node in shop.nodes().values():
        status, text = ask(node.address)
        assert status == 200, text
        lines = dict(line.split(": ", 1) for line in text.splitlines())
        assert lines.keys() == REPLICAS.keys(), text
        for service, said in lines.items():
            assert said.split()[0] in names_of(shop.tasks(service)), f"{service}: {said}"
        assert "the price is 42" in lines["api"]
        visits.append(_number(lines["cache"], "visit"))
        orders.append(_number(lines["database"], "order"))
    assert visits == list(range(visits[0], visits[0] + 3))
    assert orders == list(range(orders[0], orders[0] + 3))


def test_the_cache_is_asked_before_the_database(shop: LocalCluster) -> None:
    """What somebody puts there is what customers are told."""
    in_task(shop, "api", "echo keep 41 | nc -w 1 cache 6379")
    _, text = ask(next(iter(shop.nodes().values())).address)
    assert "the price is 41 says the cache" in text
    in_task(shop, "api", "echo keep 42 | nc -w 1 cache 6379")


def test_the_front_reaches_one_port_of_the_back(shop: LocalCluster) -> None:
    """The cache lets the web servers in; the database lets nobody in, by its name or by its task's address."""
    (database,) = shop.tasks("database")
    assert "visit" in in_task(shop, "web", "echo visit | nc -w 1 cache 6379")
    assert in_task(shop, "api", "echo price | nc -w 2 database 5432") == "42\n"
    assert in_task(shop, "api", f"echo price | nc -w 2 {database.status.address} 5432") == "42\n"
    for place in ("database", "tasks.database", database.status.address):
        in_task(shop, "web", f"echo price | nc -w 2 {place} 5432", code=1)


def test_without_the_database_the_shop_says_so_and_comes_back(shop: LocalCluster) -> None:
    """The api is not ready then, and so the web server finds nobody behind its name; nothing is restarted."""
    first = next(iter(shop.nodes().values())).address
    shop.orchctl("scale", "-n", "shop", "database=0")
    until(lambda: not any(task.status.ready for task in shop.tasks("api")), what="no api is ready", timeout_s=20)
    assert "503" in shop.orchctl("describe", "task", "-n", "shop", shop.tasks("api")[0].meta.name)
    status, text = ask(first)
    assert (status, "api: no answer" in text) == (503, True), text
    shop.orchctl("scale", "-n", "shop", "database=1")
    shop.await_whole("api", 2, timeout_s=20)
    until(lambda: ask(first)[0] == 200, what="it is whole again", timeout_s=10)
    assert not any(task.status.restarts for task in shop.tasks("api"))


def _number(said: str, what: str) -> int:
    found = re.search(rf"{what} (\d+)$", said)
    assert found, said
    return int(found[1])
