"""Who gives a node a layer that it lacks, so that fifty nodes do not fetch it fifty times from one place.

The control plane gives a blob to the first few nodes and to nobody else; those give it to the next, and so on. A node
that gives has a bound on how many it gives to at a time, and whoever finds nobody free waits: what was fetched once
makes another giver.

    ten nodes, 2 from here, each gives to 3:   here → 2   2 → 6   8 → 2     the control plane has sent it twice
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

SHOWN = 3
"""Givers that a node is told of: when one fails, it need not ask again at once."""
FROM_HERE = 2
"""Nodes that get a blob from the control plane at a time, while no other node has it."""
FROM_NODE = 3
"""Nodes that one node gives blobs to at a time."""


ENOUGH_FAILED = 3
"""Whoever could not get it from so many nodes gets it from here: it may be cut off from all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Giver:
    """A node that has the blob, where it serves it, and to how many it gives something now."""

    address: str
    zone: str
    busy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Addresses, the best first; or `here`: the control plane itself; or neither: wait."""

    addresses: tuple[str, ...] = ()
    here: bool = False

    @property
    def is_empty(self) -> bool:
        """Nobody is free."""
        return not self.addresses and not self.here


def choose(givers: Iterable[Giver], *, zone: str, failed: Collection[str], here: bool, given_here: int) -> Answer:
    """`zone`: the asking node's; `failed`: addresses that it tried in vain; `given_here`: how many get it from here.

    Nodes of the same zone come first, then those that give to fewer.
    """
    from_here = Answer(here=here and given_here < FROM_HERE)
    if from_here.here and len(failed) >= ENOUGH_FAILED:
        return from_here
    left = [one for one in givers if one.address not in failed]
    free = sorted(
        (one for one in left if one.busy < FROM_NODE), key=lambda one: (one.zone != zone, one.busy, one.address)
    )
    if free:
        return Answer(addresses=tuple(one.address for one in free[:SHOWN]))
    return Answer() if left else from_here
