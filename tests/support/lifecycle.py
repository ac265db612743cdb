"""The life of a container as the OCI specification and our READMEs have it, for tests that drive the runtime at random.

A model holds every status that the container may be in: a verb that was killed on the way, or a signal that takes its
time, leaves more than one. What is seen in the world then narrows it down.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """HALF: the folder is there, but nobody calls it a container yet. Only a kill leaves it."""

    GONE = "gone"
    HALF = "half"
    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class Verb(StrEnum):
    """What may be asked for. RUN is create and start in one."""

    CREATE = "create"
    RUN = "run"
    START = "start"
    STATE = "state"
    TERM = "kill TERM"
    KILL = "kill KILL"
    PAUSE = "pause"
    RESUME = "resume"
    EXEC = "exec"
    UPDATE = "update"
    ADOPT = "adopt"
    DELETE = "delete"
    FORCE = "delete --force"


G, H, C, R, P, S = Status.GONE, Status.HALF, Status.CREATED, Status.RUNNING, Status.PAUSED, Status.STOPPED
X: Final = Status.CREATING
ALIVE: Final = frozenset({X, C, R, P})
Table = dict[Verb, dict[Status, tuple[Status, ...]]]

# For each verb, where it leads from a status in which it is not refused. The program has a handler for TERM, but not
# yet when it has just begun; what is paused gets its signals later.
SUCCEEDS: Final[Table] = {
    Verb.CREATE: {G: (C,)},
    Verb.RUN: {G: (R,)},
    Verb.START: {C: (R,)},
    Verb.STATE: {X: (X,), C: (C,), R: (R,), P: (P,), S: (S,)},
    Verb.TERM: {X: (X,), C: (C,), R: (R, S), P: (P,)},
    Verb.KILL: {X: (S,), C: (S,), R: (S,), P: (S,)},
    Verb.PAUSE: {R: (P,)},
    Verb.RESUME: {P: (R,)},
    Verb.EXEC: {C: (C,), R: (R,)},
    Verb.UPDATE: {X: (X,), C: (C,), R: (R,), P: (P,)},
    Verb.ADOPT: {C: (C,), R: (R,), P: (P,)},
    Verb.DELETE: {S: (G,)},
    Verb.FORCE: dict.fromkeys(Status, (G,)),
}
# The library deletes whatever is not alive, and twice. The command deletes what never ran its program.
SUPERVISED: Final[Table] = SUCCEEDS | {Verb.DELETE: dict.fromkeys((S, G, H), (G,))}
UNATTENDED: Final[Table] = SUCCEEDS | {Verb.DELETE: dict.fromkeys((S, C), (G,))}
# Where a verb may leave a container when it, or somebody it needs, is killed on the way: besides where it was, and
# where the verb leads. Everything that lives may be stopped by then.
CUT_SHORT: Final[dict[Verb, tuple[Status, ...]]] = {
    Verb.CREATE: (H, X, C, S, G),
    Verb.RUN: (H, X, C, R, S, G),
    Verb.DELETE: (H, S, G),
    Verb.FORCE: (H, S, G),
}


@dataclass(slots=True)
class Model:
    """What may be true of one container."""

    table: Table
    may_be: frozenset[Status] = frozenset({G})
    doomed: bool = field(default=False)  # a signal was sent, and may take effect at any time
    making: bool = field(default=False)  # whoever asked for it has gone, and somebody may still be at work on it

    def verdicts(self, verb: Verb) -> frozenset[bool]:
        """Whether the verb may succeed: both are possible when the status is not known."""
        return frozenset(status in self.table[verb] for status in self._possible())

    def did(self, verb: Verb, *, succeeded: bool) -> None:
        """After a verb that nobody disturbed."""
        known = self._possible()
        after: set[Status] = set()
        for status in known:
            led = self.table[verb].get(status)
            if succeeded and led is not None:
                after.update(led)
            elif not succeeded and led is None:
                after.add(status)
        self.doomed = (self.doomed or verb is Verb.TERM) and verb is not Verb.RUN
        self.making = self.making and not (succeeded and verb in {Verb.CREATE, Verb.RUN})
        self.may_be = frozenset(after)

    def was_cut_short(self, verb: Verb, *, asker_gone: bool = False) -> None:
        """After a verb during which somebody was killed, perhaps whoever had passed it on."""
        after = set(self._possible()) | set(CUT_SHORT.get(verb, ()))
        for status in self._possible():
            after.update(self.table[verb].get(status, ()))
        if after & ALIVE:
            after.add(S)
        # Until its monitor has seen the end, a container that was killed looks alive.
        self.doomed = self.doomed or verb in {Verb.TERM, Verb.KILL, Verb.FORCE}
        self.making = self.making or (asker_gone and verb in {Verb.CREATE, Verb.RUN})
        self.may_be = frozenset(after)

    def lost(self, *, its_monitor: bool) -> None:
        """Its first process or its monitor was killed. What is frozen dies when it is thawed, on cgroup version 1."""
        alive = self._possible() & ALIVE
        self.may_be = (self._possible() - ALIVE) | {S}
        if Status.PAUSED in alive and not its_monitor:
            self.may_be |= {P}
            self.doomed = True

    def accepts(self, seen: Iterable[Status]) -> bool:
        """Whether the world is as the model says."""
        return set(seen) <= self._possible()

    def saw(self, status: Status) -> None:
        """The world has said which of them it is."""
        self.may_be = frozenset({status})
        if status in {G, S}:
            self.doomed = False

    def _possible(self) -> frozenset[Status]:
        possible = self.may_be
        if self.making and H in possible:
            # A monitor makes it whole, or undoes it; a deletion waits for that.
            possible |= {C, R, S, G}
        elif self.making and G in possible:
            # Begun too late, and undone at once.
            possible |= {H}
        return possible | {S} if self.doomed and possible & ALIVE else possible
