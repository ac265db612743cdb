"""What tasks have to do with each other: near, apart, and evenly spread over the values of an attribute.

Near and spread look at tasks that nobody has told to stop: those that leave are no company to count on. Apart looks at
all that have not ended, and in both directions: who must not be near to whom must not be joined by them either.

Spread, example: zones a, b and c have 2, 1 and 1 of the tasks and `maxSkew` is 1 → a takes none, since 3 − 1 > 1.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from controlplane.core import ask as asking
from controlplane.core import fleet as fleets
from controlplane.core.ask import Ask


def values_with(fleet: fleets.Fleet, by: str, rows: Mapping[int, int]) -> frozenset[int]:
    """The values (as codes) of the attribute at which something is."""
    codes = fleet.column(by).codes
    return frozenset(int(codes[row]) for row, count in rows.items() if count and codes[row] >= 0)


def with_value(fleet: fleets.Fleet, by: str, codes: frozenset[int]) -> fleets.Mask:
    """The nodes whose attribute has one of these values."""
    return np.asarray(np.isin(fleet.column(by).codes, list(codes)), dtype=np.bool_)


def counts(fleet: fleets.Fleet, by: str, rows: Mapping[int, int]) -> list[int]:
    """How many are at each value of the attribute; the last one: where it has none."""
    column = fleet.column(by)
    found = [0] * (len(column.values) + 1)
    for row, count in rows.items():
        found[int(column.codes[row])] += count
    return found


def company(fleet: fleets.Fleet, ask: Ask, affinity: asking.Affinity) -> Mapping[int, int]:
    """The rows on which there are tasks that it is to be near to."""
    return fleet.neighbours((ask.namespace, affinity.service)).wanted


def is_first(fleet: fleets.Fleet, ask: Ask, affinity: asking.Affinity) -> bool:
    """The first task that is to be near to its own service may be anywhere."""
    return affinity.service == ask.service and not any(company(fleet, ask, affinity).values())


# Near -----------------------------------------------------------------------------------------------------------------


def near_enough(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    """The nodes that are near to all that it has to be near to."""
    mask = np.ones(len(fleet.nodes), dtype=np.bool_)
    for one in ask.near:
        if not one.weight and not is_first(fleet, ask, one):
            mask &= with_value(fleet, one.by, values_with(fleet, one.by, company(fleet, ask, one)))
    return mask


def near_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    """What is missing there."""
    for one in ask.near:
        rows = company(fleet, ask, one)
        if one.weight or is_first(fleet, ask, one) or with_value(fleet, one.by, values_with(fleet, one.by, rows))[row]:
            continue
        if not any(rows.values()):
            return f"it has to be near to service {one.service}, which has no task on any node"
        return f"it has to be near to service {one.service}, by {one.by}"
    raise AssertionError("asked about a node that is near enough")


# Apart ----------------------------------------------------------------------------------------------------------------


def apart_enough(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    """The nodes where nobody is that it has to be apart from, and nobody who has to be apart from it."""
    mask = np.ones(len(fleet.nodes), dtype=np.bool_)
    for _, by, rows in _unwanted(fleet, ask):
        mask &= ~with_value(fleet, by, values_with(fleet, by, rows))
    return mask


def apart_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    """Who is there."""
    for name, by, rows in _unwanted(fleet, ask):
        if with_value(fleet, by, values_with(fleet, by, rows))[row]:
            return f"it has to be apart from service {name}, by {by}"
    raise AssertionError("asked about a node that is far enough")


def _unwanted(fleet: fleets.Fleet, ask: Ask) -> Iterator[tuple[str, str, Mapping[int, int]]]:
    """Services that it must not meet, by which attribute, and where their tasks are."""
    for one in ask.apart:
        if not one.weight:
            yield one.service, one.by, fleet.neighbours((ask.namespace, one.service)).present
    for (_, name), by, rows in fleet.repellers.get(ask.key, ()):
        yield name, by, rows


# Spread ---------------------------------------------------------------------------------------------------------------


def even_enough(fleet: fleets.Fleet, ask: Ask, eligible: fleets.Mask) -> fleets.Mask:
    """The nodes in parts that have not more tasks than the emptiest one allows. Parts are those with eligible nodes."""
    mask = np.ones(len(fleet.nodes), dtype=np.bool_)
    for by, skew in ask.spread:
        if skew:
            found = counts(fleet, by, fleet.neighbours(ask.key).wanted)
            least = least_of(found, parts(fleet, by, eligible))
            column = fleet.column(by)
            allowed: dict[str | None, bool] = {
                value: found[code] + 1 - least <= skew for code, value in enumerate(column.values)
            }
            mask &= column.where({**allowed, None: False})
    return mask


def uneven_detail(fleet: fleets.Fleet, ask: Ask, eligible: fleets.Mask, row: int) -> str:
    """Which part has how many."""
    for by, skew in ask.spread:
        value = fleet.column(by).value(row)
        if skew and value is None:
            return f"it is spread over {by}, which the node does not have"
        found = counts(fleet, by, fleet.neighbours(ask.key).wanted)
        least = least_of(found, parts(fleet, by, eligible))
        here = found[int(fleet.column(by).codes[row])]
        if skew and here + 1 - least > skew:
            return f"{by} {value} has {here} of its tasks, the emptiest part {least}, and maxSkew is {skew}"
    raise AssertionError("asked about a node that is even enough")


def parts(fleet: fleets.Fleet, by: str, eligible: fleets.Mask) -> frozenset[int]:
    """The values over which tasks are spread: those of nodes that might take one."""
    return frozenset(np.unique(fleet.column(by).codes[eligible]).tolist()) - {-1}


def least_of(found: list[int], among: frozenset[int]) -> int:
    """The number of tasks in the emptiest part."""
    return min((found[code] for code in among), default=0)
