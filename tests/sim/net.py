"""The network between simulated processes: links that delay, lose, double and reorder messages, and cuts.

A link behaves like a stream on a bad day. A lost or reordered message does not break it: the session's own sequence
numbers have to notice. A cut holds everything back in one direction; after `KEEPALIVE_S` both ends see the link as
lost, each at its own moment.
"""

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from protos.link import LinkLost

KEEPALIVE_S = 3.0


@dataclass(slots=True, kw_only=True)
class Weather:
    """Chances for each message. Zero everywhere is a fine day."""

    lose: float = 0.0
    double: float = 0.0
    late: float = 0.0
    """By up to `LATE_S`; whatever follows may overtake it."""


LATE_S = 0.4

_WORLD = contextvars.Context()
"""Messages travel on when their sender is frozen."""


def _after(delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
    asyncio.get_running_loop().call_later(delay_s, call, *arguments, context=_WORLD)


class Observer(Protocol):
    """Sees what is said."""

    def sent(self, end: "End", message: object) -> None:
        """The process at this end says something."""

    def arrived(self, end: "End", message: object) -> None:
        """The process at this end can hear something."""


class Network:
    """Every link and every cut. Endpoints are names: `cp1`, `n1`, `store`."""

    def __init__(self, chance: random.Random, observer: Observer) -> None:
        self.weather = Weather()
        self.observer = observer
        self._chance = chance
        self._cuts: set[tuple[str, str]] = set()
        self._frozen: set[str] = set()
        self._ends: list[End] = []

    def link(self, one: str, other: str) -> tuple["End", "End"]:
        """A new link between two endpoints: the end of each."""
        first, second = End(self, one, other), End(self, other, one)
        first.other, second.other = second, first
        self._ends = [end for end in self._ends if not end.broken] + [first, second]
        return first, second

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from `source` to `target` any more."""
        self._cuts.add((source, target))
        for end in self._ends:
            if {end.owner, end.peer} == {source, target}:
                delay_s = KEEPALIVE_S * self._chance.uniform(0.7, 1.3)
                _after(delay_s, end.notice_cut)

    def heal(self) -> None:
        """Every cut is mended."""
        self._cuts.clear()

    def is_cut(self, source: str, target: str) -> bool:
        """Whether messages from `source` to `target` are held back."""
        return (source, target) in self._cuts

    def any_cut(self) -> bool:
        return bool(self._cuts)

    def freeze(self, owner: str) -> None:
        """The process `owner` answers nothing; after a while its peers count their links to it as lost."""
        self._frozen.add(owner)
        for end in self._ends:
            if end.owner == owner and not end.broken:
                _after(KEEPALIVE_S * self._chance.uniform(0.7, 1.3), self._notice_silence, end)

    def thaw(self, owner: str) -> None:
        """It answers again."""
        self._frozen.discard(owner)

    def _notice_silence(self, end: "End") -> None:
        if end.owner in self._frozen:
            end.other.fail("no answer to keepalive")
            end.fail("the other side has closed the link")

    def kill(self, owner: str, *, silently: bool) -> None:
        """The process `owner` is gone. Its peers see it at once, or (`silently`, its machine died) after keepalive."""
        for end in self._ends:
            if end.owner == owner and not end.broken:
                end.fail("this process was killed")
                delay_s = KEEPALIVE_S if silently else self._chance.uniform(0.0, 0.02)
                _after(delay_s, end.other.fail, f"{owner} is gone")

    def delays(self) -> list[float]:
        """After how long a message arrives: none for a lost one, two for a doubled one."""
        if self._chance.random() < self.weather.lose:
            return []
        count = 2 if self._chance.random() < self.weather.double else 1
        return [self._delay() for _ in range(count)]

    def _delay(self) -> float:
        if self._chance.random() < self.weather.late:
            return self._chance.uniform(0.0, LATE_S)
        return self._chance.uniform(0.0001, 0.002)


class End:
    """One end of a link: `protos.link.Link`."""

    other: "End"

    def __init__(self, network: Network, owner: str, peer: str) -> None:
        self.owner = owner
        self.peer = peer
        self._network = network
        self._arrived: deque[Any] = deque()
        self._something = asyncio.Event()
        self._lost = ""
        self._free_at = 0.0

    @property
    def broken(self) -> bool:
        return bool(self._lost)

    async def send(self, message: Any) -> None:
        await asyncio.sleep(0)
        if self._lost:
            raise LinkLost(self._lost)
        copy = type(message)()
        copy.CopyFrom(message)
        self._network.observer.sent(self, copy)
        if self._network.is_cut(self.owner, self.peer):
            return
        loop = asyncio.get_running_loop()
        for delay_s in self._network.delays():
            arrival = loop.time() + delay_s
            if delay_s < LATE_S / 10:
                # On time: in the order in which it was sent.
                arrival = self._free_at = max(arrival, self._free_at)
            loop.call_at(arrival, self.other.arrive, copy, context=_WORLD)

    async def receive(self) -> Any:
        while not self._arrived:
            if self._lost:
                raise LinkLost(self._lost)
            self._something.clear()
            await self._something.wait()
        return self._arrived.popleft()

    async def close(self, reason: str = "") -> None:
        if not self._lost:
            self.fail(reason or "closed")
            if not self._network.is_cut(self.owner, self.peer):
                _after(0.001, self.other.fail, reason or "closed by the other side")

    def arrive(self, message: Any) -> None:
        """A message comes in, unless the link or the way is cut meanwhile."""
        if not self._lost and not self._network.is_cut(self.peer, self.owner):
            self._network.observer.arrived(self, message)
            self._arrived.append(message)
            self._something.set()

    def notice_cut(self) -> None:
        """Keepalive was not answered: the cut has lasted, or the other side has noticed it before."""
        cut = self._network.is_cut(self.owner, self.peer) or self._network.is_cut(self.peer, self.owner)
        if cut or self.other.broken:
            self.fail("no answer to keepalive")

    def fail(self, why: str) -> None:
        """The link is lost as far as this end can tell."""
        self._lost = self._lost or why
        self._something.set()
