"""Which control plane an agent dials."""

from pathlib import Path

from agent import servers
from agent.servers import Servers


def test_whoever_failed_is_dialed_after_all_others() -> None:
    """In turn; one that somebody else has named is no matter."""
    made = Servers(["a", "b", "c"])
    order = []
    for _ in range(4):
        order.append(made.next)
        made.pass_over(made.next)
    assert order == ["a", "b", "c", "a"]
    made.pass_over("elsewhere")
    assert (made.next, made.count) == ("b", 3)


def test_what_the_cluster_tells_is_kept_and_comes_first_in_the_next_life() -> None:
    """The command line's is dialed, too: it may be the only one that is right."""
    kept: list[list[str]] = []
    made = Servers(["a"], keep=lambda told: kept.append(list(told)))
    made.learn(["a", "b", "c"])
    made.learn(["a", "b", "c"])
    assert kept == [["a", "b", "c"]]
    made.pass_over("a")
    made.learn(["b", "c", "d"])
    assert (made.next, made.count) == ("b", 4)
    again = Servers(["a"], kept[-1])
    assert [again.next, again.count] == ["b", 4]


def test_no_news_and_nonsense_change_nothing() -> None:
    """An empty list would leave an agent alone for ever."""
    made = Servers(["a", "b"])
    made.learn([])
    made.learn([f"s{number}" for number in range(servers.MOST + 1)])
    assert (made.next, made.count) == ("a", 2)


def test_a_file_that_cannot_be_read_is_as_good_as_none(tmp_path: Path) -> None:
    """The command line names a server."""
    path = tmp_path / "servers.json"
    assert servers.load(path) == []
    path.write_bytes(servers.text(["a", "b"]))
    assert servers.load(path) == ["a", "b"]
    for damaged in (b"", b"[]", b'{"servers": 3}', b"\xff"):
        path.write_bytes(damaged)
        assert servers.load(path) == []
