"""The files by which a container finds names, its own first."""

import pytest

from agent.core import container, hostfiles
from agent.core.hostfiles import Resolving
from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_agent import NODE
from tests.support.fake_leader import template

IMAGE = container.PreparedImage(digest="sha256:0", layers=("/l",), cmd=("run",))
TASK = pb.Task(meta=pb.Meta(id="web-3-x7", name="web-3-x7", namespace="shop"), service="web", slot=3)


def made(*, hostname: str = "") -> hostfiles.Mapping[str, str]:
    """The files of a container, through the agent's own path."""
    wanted = template("/web")
    wanted.container.hostname = hostname
    request = container.request(
        task=TASK,
        template=wanted,
        image=IMAGE,
        node=NODE,
        address="10.1.0.5",
        network_namespace="/ns",
        resolving=Resolving(servers=("10.1.0.1",), search=("corp.example",)),
    )
    assert request.config["hostname"] == request.files[hostfiles.HOSTNAME].strip()
    return request.files


@pytest.mark.parametrize(
    ("hostname", "line"),
    [
        ("", "10.1.0.5 web-3.web.shop.orch web-3-x7 web-3"),
        ("db", "10.1.0.5 web-3.web.shop.orch db web-3-x7 web-3"),
        ("db.example.com", "10.1.0.5 web-3.web.shop.orch db.example.com db web-3-x7 web-3"),
    ],
)
def test_a_container_finds_itself(hostname: str, line: str) -> None:
    """By the name that others know, by its host name, long and short, and by its task's."""
    files = made(hostname=hostname)
    assert files[hostfiles.HOSTNAME] == f"{hostname or 'web-3-x7'}\n"
    assert line in files[hostfiles.HOSTS].splitlines()
    assert "127.0.0.1 localhost" in files[hostfiles.HOSTS].splitlines()


def test_names_are_looked_for_near_first() -> None:
    """In the namespace, then in the cluster, then where the node looks."""
    assert made()[hostfiles.RESOLV_CONF] == (
        "nameserver 10.1.0.1\nsearch shop.orch orch corp.example\noptions ndots:1\n"
    )


@pytest.mark.parametrize(
    ("domains", "kept"),
    [
        ([f"d{n}" for n in range(9)], 4),
        (["x" * 100, "y" * 100, "z" * 100], 2),
        (["orch", "a", "a"], 1),
    ],
)
def test_the_list_of_domains_is_bounded(domains: list[str], kept: int) -> None:
    """Six, and 256 characters; none twice."""
    text = hostfiles.resolv_conf("shop", Resolving(servers=("10.1.0.1",), search=tuple(domains)))
    words = text.splitlines()[1].split()[1:]
    assert words[:2] == ["shop.orch", "orch"]
    assert len(words) == 2 + kept
    assert len(" ".join(words)) <= 256


def test_a_task_without_an_address_or_a_slot() -> None:
    """There is less to say, and nothing wrong."""
    assert hostfiles.hosts(TASK, hostname="x", addresses=()).splitlines()[-1] == "ff02::2 ip6-allrouters"
    alone = pb.Task(meta=pb.Meta(name="job-a", namespace="shop"))
    assert hostfiles.hosts(alone, hostname="job-a", addresses=("10.1.0.5",)).endswith("\n10.1.0.5 job-a\n")


def test_a_task_with_two_addresses_has_a_line_for_each() -> None:
    alone = pb.Task(meta=pb.Meta(name="job-a"))
    lines = hostfiles.hosts(alone, hostname="job-a", addresses=("10.1.0.5", "fd00::5")).splitlines()
    assert lines[-2:] == ["10.1.0.5 job-a", "fd00::5 job-a"]
