"""Which member of etcd is asked next within one call, how long, and whether one that failed is asked again.

A member that is there may be between two leaders: then the same call succeeds in a moment, and the member that is asked
first is asked again, before any other one. One that is not there is not asked again within the call.

What etcd (3.4.23) does with a write while its leader hands over to another member, looked at with real members:

    sent to the leader itself    refused at once: "raft proposal dropped". It was certainly not carried out
    sent to another member       passed on and lost without a word; the writer is told after 5 s and two elections

The naive design waits for that. Here a write that has no answer after half a second is sent again, at most a handful of
times and ever more patiently, so that a slow store is not flooded. Reads need no such haste: members that wait for a
leader's word say "leader changed" as soon as there is another one.
"""

import asyncio
import collections
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import grpc
import grpc.aio

WRITE_TRIES_S = (0.5, 0.5, 1.0, 1.0, 3.0)
"""How long a try of a write may last, by how many before it were too late. A commit takes milliseconds, and up to a
second while etcd elects; a store that is slower than that carries the first tries out late, and the last one waits."""
TURN_S = 2.0
"""For how long the first member is asked again before another one is: the longest election of ours, twice."""
PAUSE_S = 0.05
"""Between a try that failed at once and the next one at the same member. To hand over takes etcd about as long."""

_DROPPED = "raft proposal dropped"
_BETWEEN_LEADERS = (
    _DROPPED,
    "etcdserver: leader changed",
    "etcdserver: no leader",
    "etcdserver: request timed out",
)
"""How etcd begins what it says of a call that it did not carry out, or does not know whether it did."""


class Addressed(Protocol):
    """Something that is asked at an address."""

    @property
    def address(self) -> str: ...


L = TypeVar("L", bound=Addressed)


class Tries(Generic[L]):
    """Whom to ask `next`; of each that does not answer it is told that it has `failed`.

    Everybody is asked at least once. Then it ends when nobody is left who may answer, or `longest_s` seconds are over.
    """

    def __init__(self, links: Sequence[L], *, longest_s: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._waiting = collections.deque(links)
        self._unasked = len(links)
        self._longest_s = longest_s
        self._end = self._clock() + longest_s
        self._turn_ends = self._clock() + min(TURN_S, longest_s)
        self._late = 0
        self._asked_at = 0.0
        self._failures: dict[str, str] = {}

    @property
    def failures(self) -> Sequence[str]:
        """Why each that was asked did not answer, the last time that it was."""
        return tuple(self._failures.values())

    @property
    def write_timeout_s(self) -> float:
        """How long the next try of a write may last."""
        return min(WRITE_TRIES_S[min(self._late, len(WRITE_TRIES_S) - 1)], self._longest_s)

    async def next(self) -> L | None:
        """Whom to ask now; None: there is nobody left, or no more time."""
        if not self._waiting or (not self._unasked and self._clock() >= self._end):
            return None
        link = self._waiting[0]
        if link.address in self._failures:
            await asyncio.sleep(max(0.0, self._asked_at + PAUSE_S - self._clock()))
        self._asked_at = self._clock()
        return link

    def failed(self, why: str, *, again: bool, late: bool = False) -> None:
        """The one whose turn it is did not answer. `again`: it is there, and may answer when it is asked once more.
        `late`: it took as long as it may.
        """
        link = self._waiting[0]
        self._unasked -= link.address not in self._failures
        self._failures[link.address] = why
        self._late += late
        if not again:
            self._waiting.popleft()
        elif self._clock() >= self._turn_ends:
            self._waiting.rotate(-1)


def is_late(error: Exception) -> bool:
    """Whether a try took longer than it may. It may be carried out yet."""
    return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def is_dropped(error: Exception) -> bool:
    """Whether a write was certainly not carried out."""
    return isinstance(error, grpc.aio.AioRpcError) and error.details() == _DROPPED


def is_between_leaders(error: Exception) -> bool:
    """Whether the member is there, and the same call may succeed in a moment."""
    return isinstance(error, grpc.aio.AioRpcError) and (error.details() or "").startswith(_BETWEEN_LEADERS)
