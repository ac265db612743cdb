"""Which addresses and ports are given, and which are not given yet."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.addresses import AddressPool, PortTable
from agent.core.network import PublishedPort, published_ports
from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_leader import template


@given(seed=st.integers(0, 2**32))
def test_no_address_is_given_twice(seed: int) -> None:
    """Whatever is taken, claimed and freed; and the one that was freed last comes last."""
    chance, pool, held = random.Random(seed), AddressPool("10.0.0.0/28"), {}
    for number in range(chance.randrange(100)):
        if held and chance.random() < 0.5:
            owner = chance.choice(list(held))
            freed = held.pop(owner)
            pool.free(freed, owner)
            if len(held) < 12:
                taken = pool.take(f"t{number}")
                assert taken is not None
                assert taken != freed
                held[f"t{number}"] = taken
        elif (taken := pool.take(f"t{number}")) is not None:
            held[f"t{number}"] = taken
        assert len(set(held.values())) == len(held) == len(pool)
        assert not {"10.0.0.0", "10.0.0.1", "10.0.0.15"} & set(held.values())
    while pool.take("rest") is not None:
        pass
    assert len(pool) == 13, "every address can be given"


def test_claimed_addresses() -> None:
    """Those of an earlier agent stay theirs; what lay between them can still be given, but later."""
    pool = AddressPool("10.0.0.0/29")
    assert pool.claim("10.0.0.4", "old")
    assert not pool.claim("10.0.0.4", "other")
    assert not pool.claim("10.0.0.1", "other"), "the gateway's"
    assert not pool.claim("10.9.9.9", "other"), "of another subnet"
    assert [pool.take(f"t{n}") for n in range(5)] == ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3", None]


def test_a_subnet_without_room_is_refused() -> None:
    """In words."""
    with pytest.raises(ValueError, match="no room for tasks"):
        AddressPool("10.0.0.0/31")


def test_ports_are_given_whole_or_not_at_all() -> None:
    """And the refusal says whose the port is."""
    table = PortTable()
    assert table.take([(1, 80), (1, 443)], "a") is None
    assert table.take([(1, 81), (1, 443)], "b") == (443, "a")
    assert table.take([(1, 81)], "c") is None, "nothing was kept for b"
    assert table.take([(2, 80)], "b") is None, "another protocol is another port"
    table.free("a")
    assert table.take([(1, 443)], "b") is None


def test_a_new_pool_goes_on_behind_the_last_address() -> None:
    """What is above comes first, then what is below; what a task has is not given."""
    pool = AddressPool("10.0.0.0/29")
    pool.resume("10.0.0.4")
    assert pool.claim("10.0.0.6", "kept")
    assert [pool.take(f"t{number}") for number in range(5)] == ["10.0.0.5", "10.0.0.2", "10.0.0.3", "10.0.0.4", None]


def test_only_published_ports_are_published() -> None:
    """A port without a number outside is only a remark; the protocol is TCP unless said otherwise."""
    made = template("x")
    made.container.ports.add(target=80, published=8080)
    made.container.ports.add(target=81)
    assert published_ports(made) == (PublishedPort(protocol=pb.PROTOCOL_TCP, published=8080, target=80),)
