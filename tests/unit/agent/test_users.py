"""Which of the node's ids containers get: no two the same, none twice soon, and every refusal with its way out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import isolation, users
from agent.core.users import SIZE, IdPool, Ids
from agent.errors import Refused, Temporary
from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_leader import task

FIRST = 1 << 20
FEW = 4
IDS = Ids(first=FIRST, count=FEW * SIZE)


class Life:
    """What a node's tasks hold over the deaths of its agents, beside the pool that only the present agent has."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.pool = IdPool(IDS)
        self.freed: list[int] = []  # by the present agent, oldest first
        self._tasks = 0

    def take(self) -> None:
        self._tasks += 1
        name = f"t{self._tasks}"
        first = self.pool.take(name)
        if first is None:
            assert len(self.held) >= FEW, "refused while there was room"
            return
        assert IDS.first <= first <= IDS.end - SIZE
        assert (first - IDS.first) % SIZE == 0
        assert first not in self.held.values(), "two tasks have the same users"
        others_free = FEW - len(self.held) > 1
        assert not (others_free and self.freed and first == self.freed[-1]), "given again at once"
        assert self.pool.take(name) == first, "asked again, a task keeps what it has"
        self.held[name] = first
        self.freed = [each for each in self.freed if each != first]

    def free(self, number: int) -> None:
        if self.held:
            name = sorted(self.held)[number % len(self.held)]
            self.pool.free(name)
            self.freed.append(self.held.pop(name))

    def die(self) -> None:
        """The next agent knows the records alone, in whatever order they are read."""
        self.pool, self.freed = IdPool(IDS), []
        for name, first in sorted(self.held.items()):
            assert self.pool.claim(first, name)


@given(st.lists(st.sampled_from(["take", "take", "take", "take", 0, 1, 2, 3, "die"]), max_size=60))
def test_no_range_is_given_to_two(story: list[str | int]) -> None:
    """Whatever is taken, freed and forgotten by agents that die; and the one that was freed last is given last."""
    life = Life()
    for event in story:
        if event == "take":
            life.take()
        elif event == "die":
            life.die()
        else:
            life.free(int(event))
    while life.pool.take(f"rest-{len(life.held)}") is not None:
        life.held[f"rest-{len(life.held)}"] = 0
    assert len(life.held) == FEW, "every range can be given"


def test_a_claim_that_cannot_be() -> None:
    """A range that another has, or a second one for the same task, is refused, and nothing is lost by it."""
    pool = IdPool(IDS)
    assert pool.claim(FIRST, "a")
    assert not pool.claim(FIRST, "b")
    assert not pool.claim(FIRST + SIZE, "a")
    pool.free("b")
    assert [pool.take(f"t{number}") for number in range(FEW)] == [*range(FIRST + SIZE, IDS.end, SIZE), None]


def test_ranges_of_an_agent_with_other_ids_stay_theirs() -> None:
    """As long as they are in use; afterwards they are nobody's."""
    pool = IdPool(IDS)
    assert pool.claim(5 << 20, "old")
    assert pool.take("old") == 5 << 20
    pool.free("old")
    assert [pool.take(f"t{number}") for number in range(FEW + 1)] == [*range(FIRST, IDS.end, SIZE), None]


def choose(pool: IdPool, no_users: str = "", name: str = "web-1-a", **fields: object) -> int:
    return isolation.choose_root(task(name), pb.Container(**fields), pool, no_users)  # type: ignore[arg-type]


def test_who_gets_users_of_their_own() -> None:
    """Everybody but who asks for the node's."""
    pool = IdPool(IDS)
    assert choose(pool) == FIRST
    assert choose(pool, name="b", userns=pb.USER_NAMESPACE_AUTO) == FIRST + SIZE
    assert choose(pool, name="c", userns=pb.USER_NAMESPACE_HOST) == 0
    assert choose(pool, name="d", privileged=True) == 0


def test_a_node_that_cannot() -> None:
    """Gives the node's users to whoever did not insist, and tells the others why."""
    assert choose(IdPool(IDS), "no idmapped mounts") == 0
    with pytest.raises(Refused, match=r"task web-1-a: .* no idmapped mounts; place it on another node") as refusal:
        choose(IdPool(IDS), "no idmapped mounts", userns=pb.USER_NAMESPACE_AUTO)
    assert refusal.value.reason == "NoUsers"


def test_a_node_that_has_given_all() -> None:
    """Says so with the task, how many there are, and what can be done; and gives again what is freed."""
    pool = IdPool(Ids(first=FIRST, count=SIZE))
    choose(pool, name="a")
    with pytest.raises(Temporary, match=r"task b: all 1 ranges of user ids of this node \(1048576:65536\) .*--ids"):
        choose(pool, name="b")
    pool.free("a")
    assert choose(pool, name="b") == FIRST


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "a:b",
        "1048576",
        "1048576:",
        "1048576:1",
        "1:65536",
        "0:65536",
        "1048576:0",
        "2147418112:131072",
        "-1:1",
    ],
)
def test_ids_that_are_none(text: str) -> None:
    """Whole ranges above the machine's own users only; the message has an example."""
    with pytest.raises(ValueError, match=users.DEFAULT):
        Ids.parse(text)


def test_the_default_ids() -> None:
    """Beside what Debian, systemd and nspawn use: subordinate ids, containers, foreign images."""
    ids = Ids.parse(users.DEFAULT)
    assert (ids.ranges, str(ids)) == (4094, users.DEFAULT)
    assert ids.first > max(600_100_000, 0x6FFFFFFF)
    assert ids.end <= 0x7FFE0000


@pytest.mark.parametrize(
    ("path", "text", "who"),
    [
        ("/etc/passwd", "root:x:0:0::/:/bin/sh\nbig:x:1048577:1::/:/bin/sh\n", "/etc/passwd:2 gives 1048577 to big"),
        ("/etc/group", "big:x:1310719:\n", "/etc/group:1 gives 1310719 to big"),
        ("/etc/subuid", "me:983041:65536\n", "/etc/subuid:1 gives 983041 to me"),
        ("/etc/subgid", "me:983040:65536\nhim:1310720:9\norch:1048576:65536\nbad\nx:y:z\n", ""),
        ("/etc/passwd", "root:x:0:0::/:/bin/sh\nnobody\n", ""),
    ],
)
def test_ids_that_somebody_has(path: str, text: str, who: str) -> None:
    """Are found in the machine's files, to the last one; a line for `orch` is how to reserve them."""
    assert users.conflict(IDS, {path: text}) == who
