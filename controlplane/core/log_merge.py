"""Puts the lines of several logs into the order of their times.

A line may go out once every other log has shown a later one. A log that is silent for long must not hold the others
back for ever, so the caller says which logs are still worth waiting for. The example waits for b, then not any more:

    a: 1 3      b: 2          take({a, b}) → 1 2      take({a}) → 3
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Collection, Iterable

from protos.orch.v1 import control_pb2 as api


class LogMerge:
    """Lines in hand, by time; lines of one log stay in the order in which they came."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str, api.LogLine]] = []
        self._numbers = itertools.count()
        self._in_hand: Counter[str] = Counter()
        self._newest: dict[str, int] = {}

    def add(self, source: str, lines: Iterable[api.LogLine]) -> None:
        """Takes in lines of one log, in its order."""
        for line in lines:
            # A clock that was set back must not put a log's own lines out of order.
            moment = max(line.time_ns, self._newest.get(source, 0))
            self._newest[source] = moment
            heapq.heappush(self._heap, (moment, next(self._numbers), source, line))
            self._in_hand[source] += 1

    def in_hand(self, source: str) -> int:
        """How many lines of a log wait to be taken."""
        return self._in_hand[source]

    def __len__(self) -> int:
        return len(self._heap)

    def take(self, awaited: Collection[str], limit: int) -> list[api.LogLine]:
        """Up to `limit` lines in order, as long as each awaited log has one in hand."""
        taken: list[api.LogLine] = []
        if any(not self._in_hand[source] for source in awaited):
            return taken
        while self._heap and len(taken) < limit:
            _, _, source, line = heapq.heappop(self._heap)
            taken.append(line)
            self._in_hand[source] -= 1
            if not self._in_hand[source] and source in awaited:
                break
        return taken
