"""What whoever watches a build is told. Any thread may tell, and nobody waits for an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One instruction of one stage: `number` of `total`, counted over the stages that are built.

    Triggers of a base image are known once it is there, when others have their numbers: they count after FROM, as
    `trigger` 1, 2 and so on. `makes_files` tells a step that has a result in the cache from one that only writes
    something down.
    """

    stage: str
    number: int
    total: int
    text: str
    makes_files: bool
    trigger: int = 0

    @property
    def label(self) -> str:
        """What no other step of the build is called: `4`, or `4+1` for a trigger."""
        return f"{self.number}+{self.trigger}" if self.trigger else str(self.number)


class Watcher(Protocol):
    """Told of each step: when it begins, what it writes, and how it ends."""

    def begun(self, step: Step) -> None: ...

    def wrote(self, step: Step, data: bytes) -> None: ...

    def ended(self, step: Step, *, cached: bool, seconds: float) -> None: ...

    def warned(self, text: str) -> None: ...


class Nobody:
    """For whom nobody watches."""

    def begun(self, step: Step) -> None: ...

    def wrote(self, step: Step, data: bytes) -> None: ...

    def ended(self, step: Step, *, cached: bool, seconds: float) -> None: ...

    def warned(self, text: str) -> None: ...
