"""What the node's own servers said, and for how long it is repeated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.dns import names, resolvers, wire
from agent.core.dns.cache import Cache, ttl_of
from agent.core.dns.wire import Answer, Record

NAME = names.from_text("example.com")


def record(ttl_s: int, kind: int = wire.A, data: bytes = bytes(4)) -> Record:
    return Record(NAME, kind, ttl_s, data)


def soa(ttl_s: int, minimum_s: int) -> Record:
    return record(ttl_s, wire.SOA, wire.soa(primary=NAME, contact=NAME, serial=1, negative_ttl_s=minimum_s))


def test_time_is_counted_down() -> None:
    """Whoever asks later is told less; and in the end nothing."""
    cache = Cache()
    cache.put("q", Answer(answers=(record(10), record(20)), additional=(record(30),)), now_s=100.0)
    for now_s, expected in ((100.5, [10, 20]), (103.0, [7, 17]), (109.9, [1, 11])):
        found = cache.get("q", now_s)
        assert found is not None
        assert [each.ttl_s for each in found.answers] == expected
    assert cache.get("q", 110.0) is None
    assert (len(cache), cache.size_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("answer", "ttl_s"),
    [
        (Answer(answers=(record(10), record(20))), 10),
        (Answer(answers=(record(10),), authority=(record(3, wire.NS, NAME),)), 3),
        (Answer(answers=(record(10**9),)), 86_400),
        (Answer(answers=(record(0),)), 0),
        (Answer(answers=(record(10),), truncated=True), 0),
        (Answer(wire.NXDOMAIN, authority=(soa(900, 60),)), 60),
        (Answer(wire.NXDOMAIN, authority=(soa(30, 60),)), 30),
        (Answer(authority=(soa(9000, 9000),)), 300),
        (Answer(answers=(record(5, wire.CNAME, NAME),), authority=(soa(900, 60),)), 5),
        (Answer(answers=(record(5, wire.CNAME, NAME),)), 0),  # nobody says how long it is not there
        (Answer(wire.NXDOMAIN), 0),
        (Answer(wire.SERVFAIL, answers=(record(10),)), 0),
    ],
)
def test_how_long_an_answer_is_kept(answer: Answer, ttl_s: int) -> None:
    """As its shortest record says; one that there is nothing, as its SOA record says (RFC 2308, 5)."""
    assert ttl_of(answer) == ttl_s


def test_what_was_not_asked_for_longest_goes_first() -> None:
    """What is kept is bounded in bytes."""
    cache = Cache(max_bytes=64 * 1024)
    for number in range(1000):
        cache.put(number, Answer(answers=(record(60),)), now_s=0)
        cache.get(0, 0)
        assert cache.size_bytes <= 64 * 1024
    assert cache.get(0, 0) is not None
    assert cache.get(1, 0) is None
    assert cache.get(999, 0) is not None
    cache.put("large", Answer(answers=(record(60, data=bytes(32 * 1024)),)), now_s=0)
    assert cache.get("large", 0) is None, "one may not drive out all others"


@given(steps=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50), st.integers(0, 30)), max_size=60))
def test_the_size_is_that_of_what_is_there(steps: list[tuple[int, int, int]]) -> None:
    """However entries come, are replaced and expire."""
    cache, now_s = Cache(max_bytes=32 * 1024), 0
    for key, ttl_s, passed_s in steps:
        now_s += passed_s
        cache.put(key, Answer(answers=(record(ttl_s),)), now_s)
        cache.get((key * 7) % 10, now_s)
    assert (cache.size_bytes == 0) == (len(cache) == 0)
    assert cache.size_bytes == len(cache) * (1024 + 256 + len(NAME) + 4)


RESOLV_CONF = """\
# made by somebody
; likewise
domain first.example
search second.example. third.example
nameserver 192.0.2.1
nameserver   2001:db8::1 trailing words
nameserver fe80::1%eth0
nameserver nonsense
nameserver
nameserver 192.0.2.1
nameserver 192.0.2.4
options timeout:1
"""


def test_the_node_s_own_file() -> None:
    """Three servers are the most that a resolver knows of; the last line with domains counts."""
    found = resolvers.parse(RESOLV_CONF)
    assert found.servers == ("192.0.2.1", "2001:db8::1", "fe80::1%eth0")
    assert found.search == ("second.example", "third.example")
    assert resolvers.parse("") == resolvers.Resolvers()
    assert resolvers.parse("search .\n") == resolvers.Resolvers()
