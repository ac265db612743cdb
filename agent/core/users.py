"""Which of the node's user and group ids are given to whom: each container gets a range of 65,536 of its own.

Two rules: no range is given to two tasks, and one that was freed is the last to be given again, since what a task left
behind somewhere still carries its ids. What is in use is known from the tasks' records, so it survives the agent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

SIZE: Final = 65_536
"""Ids that a container has: 0 to 65,535, which is what images are made for."""

MAX_ID: Final = 2**31 - 1
"""Beyond, some kernels take no group for `net.ipv4.ping_group_range`, and some programs none at all."""

DEFAULT: Final = "1879048192:268304384"
"""4,094 ranges from 0x70000000 on: above what adduser(8) gives out in /etc/subuid (up to 600,100,000) and what
systemd-nspawn(1) chooses from (up to 0x6fffffff), below what systemd keeps for foreign images (from 0x7ffe0000 on).
"""

OWN_NAME: Final = "orch"
"""Whose lines in /etc/subuid and /etc/subgid are ours, and keep others away."""
FILES = ("/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid")
"""Where a machine says who has which ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """A part of the node's ids: whole ranges of SIZE."""

    first: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read FIRST:COUNT, as subuid(5) has it. Raises ValueError with what is wrong."""
        first, _, count = text.partition(":")
        if not (first.isdecimal() and count.isdecimal()):
            raise ValueError(f"{text!r} must be FIRST:COUNT, such as {DEFAULT}")
        ids = cls(first=int(first), count=int(count))
        if ids.first < SIZE or ids.first % SIZE or not ids.count or ids.count % SIZE or ids.end > MAX_ID + 1:
            raise ValueError(f"{text!r}: both must be multiples of {SIZE} that stay below {MAX_ID}, such as {DEFAULT}")
        return ids

    @property
    def end(self) -> int:
        """The first id after them."""
        return self.first + self.count

    @property
    def ranges(self) -> int:
        """How many containers they are enough for."""
        return self.count // SIZE

    def __str__(self) -> str:
        return f"{self.first}:{self.count}"


class IdPool:
    """The ranges, by their first id, and whose they are."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self._owner: dict[int, str] = {}
        self._held: dict[str, int] = {}
        self._freed: dict[int, None] = {}  # in the order in which they were freed
        self._next = ids.first

    def take(self, task_id: str) -> int | None:
        """The first id of a range for the task, which may have one already; None when all are in use."""
        if task_id in self._held:
            return self._held[task_id]
        first = self._fresh()
        if first is None and self._freed:
            first = next(iter(self._freed))
            del self._freed[first]
        if first is not None:
            self._give(first, task_id)
        return first

    def claim(self, first: int, task_id: str) -> bool:
        """Note that the task has this range already, of these ids or of an earlier agent's. False: another has it."""
        if self._owner.get(first, task_id) != task_id or self._held.get(task_id, first) != first:
            return False
        self._give(first, task_id)
        self._freed.pop(first, None)
        if self._is_ours(first):
            # What lies below may have been in use not long ago: fresh ranges are looked for above, these come later.
            below = (each for each in range(self._next, first, SIZE) if each not in self._owner)
            self._freed.update(dict.fromkeys(below))
            self._next = max(self._next, first + SIZE)
        return True

    def free(self, task_id: str) -> None:
        """Take the task's range back. Nothing happens when it has none."""
        first = self._held.pop(task_id, None)
        if first is not None:
            del self._owner[first]
            if self._is_ours(first):
                self._freed[first] = None

    def _fresh(self) -> int | None:
        """The next that nobody had since the agent's start."""
        while self._next < self.ids.end:
            first = self._next
            self._next += SIZE
            if first not in self._owner and first not in self._freed:
                return first
        return None

    def _is_ours(self, first: int) -> bool:
        return self.ids.first <= first < self.ids.end

    def _give(self, first: int, task_id: str) -> None:
        self._owner[first] = task_id
        self._held[task_id] = first


def conflict(ids: Ids, files: Mapping[str, str]) -> str:
    """Who has one of these ids already, by the text of passwd(5), group(5) and subuid(5) files; else empty.

    `files` holds each text by its path. Lines that cannot be read are nobody's.
    """
    for path, text in files.items():
        for number, line in enumerate(text.splitlines(), start=1):
            for first, count in _named(path, line.split(":")):
                if first < ids.end and ids.first < first + count:
                    return f"{path}:{number} gives {first} to {line.partition(':')[0]}"
    return ""


def _named(path: str, fields: list[str]) -> Iterator[tuple[int, int]]:
    if path.endswith(("subuid", "subgid")):
        if len(fields) == 3 and fields[0] != OWN_NAME and fields[1].isdecimal() and fields[2].isdecimal():
            yield int(fields[1]), int(fields[2])
    elif len(fields) > 2 and fields[2].isdecimal():
        yield int(fields[2]), 1
