"""When a task that is to stop has really left the network, so that its node may let it go.

A task that is told to stop leaves the endpoints first. Until every node has heard of that, some send it new
connections, and it must go on. The naive design waits for a fixed time: too long for most, and too short for the one
node that is busy. So nodes acknowledge the endpoints that they have applied, by the number of the list that the leader
sent, and a task is *withdrawn* once all of them are at a list that does not have it as ready.

    told to stop ──► list 7 goes out without it ──► n1 at 7, n2 at 7, n3 at 6 ──► n3 at 7: withdrawn
                                                                          └── after `BOUND_MS` in any case

Nodes that are DOWN are not waited for, but by their own tasks: such a node hears of everything at once when it is back,
and still sends where it was told to last. One whose session was lost is waited for, for `BOUND_MS` after that: mostly
its agent is being started again, and meanwhile its kernel goes on sending. One that has been away for longer is dead,
or cut off for who knows how long, and holds up nobody but its own tasks. A node that comes begins with the newest list.
A leader starts over with what its predecessor waited for: nodes get a new list from it anyway.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from controlplane.core import plan

BOUND_MS: Final = 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A task that is to stop. `unlisted`: the number of the first list that does not have it as ready, 0 = none ever
    had; `since_ms`: when the leader learned that it is to stop.
    """

    task_id: str
    unlisted: int
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The tasks that are withdrawn, and when to look again although nothing happened."""

    withdrawn: frozenset[str]
    look_again_ms: int | None


def decide(
    leaving: Iterable[Leaving],
    applied: Mapping[str, int],
    now_ms: int,
    away_since_ms: Mapping[str, int] | None = None,
    *,
    away: Collection[str] = frozenset(),
) -> Decision:
    """`applied`: the number of the list that each node is at; `away_since_ms`: when sessions of nodes were lost.
    `away`: tasks whose own node is not among those that are waited for.

    Example: the list is at 7 on n1 and at 6 on n2. A task that left it with 6 is withdrawn; one that left it with 7
    waits for n2, but no longer than 3 s. When n2 was lost 2 s ago, it waits for 1 s.
    """
    given_up = {name: since + BOUND_MS for name, since in (away_since_ms or {}).items() if name in applied}
    patient = [moment for moment in given_up.values() if moment > now_ms]
    everywhere = min((at for name, at in applied.items() if given_up.get(name, now_ms + 1) > now_ms), default=None)
    withdrawn: set[str] = set()
    waiting: list[int] = []
    for one in leaving:
        bound = one.since_ms + BOUND_MS
        heard = everywhere is None or one.unlisted <= everywhere
        if (heard and one.task_id not in away) or bound <= now_ms:
            withdrawn.add(one.task_id)
        else:
            waiting.append(bound)
    return Decision(
        withdrawn=frozenset(withdrawn), look_again_ms=plan.earliest([*waiting, *patient] if waiting else [])
    )
