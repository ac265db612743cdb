"""Gives many equal tasks to nodes at once, as water fills a basin: the lowest place is always filled first.

It answers as if each task looked at all nodes anew. Nodes of a better class come first, whatever they have; within a
class those with fewer of the service's own tasks, then those with less load, then those whose row comes first.

Example: three nodes of one class and equal load have 0, 2 and 0 tasks of the service, and four more are to be given →
n1, n3, n1, n3: all have 2 then.
"""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.core.fleet import Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What nodes are compared by, an array each; the nodes stand in the order of that."""

    classes: Sequence[Amounts]
    """What does not change when a task is given, the most important first."""
    own: Amounts
    """The tasks of the service that are there already, whatever their revision."""
    load: Amounts
    rows: Amounts
    """What decides at last."""
    step: int
    """What a task adds to the load."""


def fill(levels: Levels, room: Amounts, count: int) -> Amounts:
    """The rows for `count` tasks, one after another; fewer when there is not as much `room` (tasks for each node)."""
    chosen = [np.empty(0, dtype=np.int64)]
    for part in _classes(levels):
        if count <= 0:
            break
        chosen.append(_fill_class(levels, part, room[part], count))
        count -= len(chosen[-1])
    return np.concatenate(chosen)


def _classes(levels: Levels) -> list[slice]:
    """Where each class stands."""
    number = len(levels.rows)
    if not number:
        return []
    differs = np.zeros(number - 1, dtype=np.bool_)
    for column in levels.classes:
        differs |= column[1:] != column[:-1]
    borders = [0, *(np.flatnonzero(differs) + 1).tolist(), number]
    return [slice(begin, end) for begin, end in itertools.pairwise(borders)]


def _fill_class(levels: Levels, part: slice, room: Amounts, count: int) -> Amounts:
    own, load, rows = levels.own[part], levels.load[part], levels.rows[part]

    def below(level: int) -> Amounts:
        """How many tasks each node takes before it has as many as the level."""
        return np.clip(level - own, 0, room)

    highest = int(own.max()) + count  # where even the fullest node would take all of them
    level = bisect.bisect_left(range(highest), count, key=lambda level: int(below(level).sum()))
    each = below(level)
    places = np.repeat(np.arange(len(rows)), each)
    nth = np.arange(len(places)) - np.repeat(np.cumsum(each) - each, each)
    taken = rows[places]
    order = np.lexsort((taken, load[places] + levels.step * nth, own[places] + nth))
    return np.asarray(taken[order][:count], dtype=np.int64)
