"""What tasks have to do with each other: near, apart, and evenly spread over the values of an attribute.

Near and spread look at tasks that nobody has told to stop: those that leave are no company to count on. Nor is, to
others than its own service, a task for which room is only made: it may come to be elsewhere. Apart looks at all that
have not ended, and in both directions: who must not be near to whom must not be joined by them either.

Spread, example: zones a, b and c have 2, 1 and 1 of the tasks and `maxSkew` is 1 → a takes none, since 3 − 1 > 1.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from controlplane.core import ask as asking
from controlplane.core import attributes
from controlplane.core import fleet as fleets
from controlplane.core.ask import Ask

Words: TypeAlias = Callable[[int], str]
"""Why the node of a row is not taken."""

_Wish: TypeAlias = tuple[Words, fleets.Mask]
"""What is told of the nodes that do not fulfil it, and those that do."""


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
    there = fleet.neighbours((ask.namespace, affinity.service))
    return there.wanted if affinity.service == ask.service or not there.promised else there.wanted - there.promised


def is_first(fleet: fleets.Fleet, ask: Ask, affinity: asking.Affinity) -> bool:
    """The first task that is to be near to its own service may be anywhere."""
    return affinity.service == ask.service and not any(company(fleet, ask, affinity).values())


def _all_of(fleet: fleets.Fleet, masks: Iterable[fleets.Mask]) -> fleets.Mask:
    together = np.ones(len(fleet.nodes), dtype=np.bool_)
    for mask in masks:
        together &= mask
    return together


def _first_broken(wishes: Sequence[_Wish]) -> Words:
    """What is told of a node: the first wish that it does not fulfil."""
    return lambda row: next(words(row) for words, mask in wishes if not mask[row])


# Near -----------------------------------------------------------------------------------------------------------------


def near_enough(fleet: fleets.Fleet, ask: Ask, *, own: bool = True) -> fleets.Mask:
    """The nodes that are near to all that it has to be near to. `own`: to its own service, too."""
    return _all_of(fleet, (mask for _, mask in _near(fleet, ask, own=own)))


def near_details(fleet: fleets.Fleet, ask: Ask) -> Words:
    """What is missing on a node."""
    return _first_broken(list(_near(fleet, ask, own=True)))


def _near(fleet: fleets.Fleet, ask: Ask, *, own: bool) -> Iterator[_Wish]:
    for one in ask.near:
        if not one.weight and not is_first(fleet, ask, one) and (own or one.service != ask.service):
            rows = company(fleet, ask, one)
            where = f"by {one.by}" if any(rows.values()) else "which has no task on any node"
            text = f"it has to be near to service {one.service}, {where}"
            yield partial(_said, text), with_value(fleet, one.by, values_with(fleet, one.by, rows))


def _said(text: str, _row: int) -> str:
    """The same of every node."""
    return text


# Apart ----------------------------------------------------------------------------------------------------------------


def apart_enough(fleet: fleets.Fleet, ask: Ask, *, own: bool = True) -> fleets.Mask:
    """The nodes where nobody is that it has to be apart from, and nobody who has to be apart from it. Without `own`,
    its own wish to be apart from its like does not count; an older revision of it may repel it all the same.
    """
    return _all_of(fleet, (mask for _, mask in _apart(fleet, ask, own=own)))


def apart_details(fleet: fleets.Fleet, ask: Ask) -> Words:
    """Who is on a node."""
    return _first_broken(list(_apart(fleet, ask, own=True)))


def _apart(fleet: fleets.Fleet, ask: Ask, *, own: bool) -> Iterator[_Wish]:
    for name, by, rows in _unwanted(fleet, ask, own=own):
        text = f"it has to be apart from service {name}, by {by}"
        yield partial(_said, text), ~with_value(fleet, by, values_with(fleet, by, rows))


def _unwanted(fleet: fleets.Fleet, ask: Ask, *, own: bool) -> Iterator[tuple[str, str, Mapping[int, int]]]:
    """Services that it must not meet, by which attribute, and where their tasks are."""
    for one in ask.apart:
        if not one.weight and (own or one.service != ask.service):
            yield one.service, one.by, fleet.neighbours((ask.namespace, one.service)).present
    for (_, name), by, rows in fleet.repellers.get(ask.key, ()):
        yield name, by, rows


# Spread ---------------------------------------------------------------------------------------------------------------


def even_enough(fleet: fleets.Fleet, ask: Ask, eligible: fleets.Mask) -> fleets.Mask:
    """The nodes in parts that have not more tasks than the emptiest one allows. Parts are those with eligible nodes."""
    return _all_of(fleet, (mask for _, mask in _even(fleet, ask, eligible)))


def uneven_details(fleet: fleets.Fleet, ask: Ask, eligible: fleets.Mask) -> Words:
    """How many the part of a node has."""
    return _first_broken(list(_even(fleet, ask, eligible)))


def _even(fleet: fleets.Fleet, ask: Ask, eligible: fleets.Mask) -> Iterator[_Wish]:
    for by, skew in ask.spread:
        if skew:
            found = counts(fleet, by, fleet.neighbours(ask.key).wanted)
            least = least_of(found, parts(fleet, by, eligible))
            column = fleet.column(by)
            allowed: dict[str | None, bool] = {
                value: found[code] + 1 - least <= skew for code, value in enumerate(column.values)
            }
            words = partial(_uneven, by, column, found, f"the emptiest part {least}, and maxSkew is {skew}")
            yield words, column.where({**allowed, None: False})


def _uneven(by: str, column: fleets.Column, found: list[int], rest: str, row: int) -> str:
    value = column.value(row)
    if value is None:
        return f"it is spread over {by}, which the node does not have"
    part = "the node" if by in attributes.OF_EACH else f"{by} {value}"
    return f"{part} has {found[int(column.codes[row])]} of its tasks, {rest}"


def parts(fleet: fleets.Fleet, by: str, eligible: fleets.Mask) -> frozenset[int]:
    """The values over which tasks are spread: those of nodes that might take one."""
    return frozenset(np.unique(fleet.column(by).codes[eligible]).tolist()) - {-1}


def least_of(found: list[int], among: frozenset[int]) -> int:
    """The number of tasks in the emptiest part."""
    return min((found[code] for code in among), default=0)
