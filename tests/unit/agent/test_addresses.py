"""Which addresses and ports are given, and which are not given yet."""

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.addresses import MOST_ADDRESSES, AddressPool, PortTable
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


@given(
    seed=st.integers(0, 2**32), subnet=st.sampled_from(["10.0.0.0/28", "fd00::/124", "fd00:0:0:1::/64", "10.0.0.0/8"])
)
def test_whatever_happens_addresses_are_of_the_subnet_and_nobody_elses(seed: int, subnet: str) -> None:
    """Of either family, also when an earlier pool's last address and claims come first."""
    chance, pool = random.Random(seed), AddressPool(subnet)
    held: dict[str, str] = {}
    if chance.random() < 0.5:
        pool.resume(str(pool.subnet[chance.randrange(2, 14)]))
    for number in range(chance.randrange(60)):
        owner = f"t{number}"
        match chance.randrange(3):
            case 0 if held:
                gone = chance.choice(list(held))
                pool.free(held.pop(gone), gone)
            case 1:
                claimed = str(pool.subnet[chance.randrange(0, 16)])
                if pool.claim(claimed, owner):
                    held[owner] = claimed
            case _:
                if (taken := pool.take(owner)) is not None:
                    held[owner] = taken
        assert len(set(held.values())) == len(held) == len(pool)
        assert all(ipaddress.ip_address(address) in pool.subnet for address in held.values())
        assert not {str(pool.subnet[0]), str(pool.subnet[1])} & set(held.values())


def test_a_large_subnet_is_used_in_part() -> None:
    """A freed address rests for as long as that part has others, and a pool that goes on costs no more than that."""
    pool = AddressPool("fd00:112:0:1::/64")
    pool.resume(str(pool.subnet[MOST_ADDRESSES - 2]))
    assert pool.take("a") == str(pool.subnet[MOST_ADDRESSES - 1])
    assert pool.take("b") == "fd00:112:0:1::2"
    pool.free("fd00:112:0:1::2", "b")
    assert pool.take("c") == "fd00:112:0:1::3"


def test_a_subnet_of_ipv6_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a prefix of /126 or shorter"):
        AddressPool("fd00::/127")
