"""How long the fenced tasks of this node may run: for a while after a leader last certainly heard of the node.

The naive design has the agent stop them when its session is lost. It fails when the agent hangs or is dead, and when a
leader hears nothing while the agent believes to have a session. So the agent asks, with numbered heartbeats, and
whoever leads answers; and the monitor of each fenced container, which outlives the agent, kills it when the time has
come.

Rule: what counts is when a question was sent, never when its answer came. The leader that answered led after that
moment, so that it, or any later one, begins to count only afterwards (`controlplane.core.nodes`).
"""

import asyncio
from collections import deque
from collections.abc import Callable

INTERVAL_S = 1.0
"""How often it is asked while there are fenced tasks."""
MAX_QUESTIONS = 64


class Lease:
    """One for the node. `clock_s` is the runtime's: nobody sets it, and it goes on while the machine sleeps."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self.wanted = asyncio.Event()
        """Set while there are fenced tasks."""
        self.renewed = asyncio.Event()
        """Set with each answer; whoever makes use of it clears it."""
        self._clock_s = clock_s
        self._number = 0
        self._questions: deque[tuple[int, float]] = deque(maxlen=MAX_QUESTIONS)
        self._heard_s: float | None = None

    def want(self, wanted: bool) -> None:
        """Whether there are fenced tasks."""
        if wanted:
            self.wanted.set()
        else:
            self.wanted.clear()

    def ask(self) -> int:
        """The number of the question that is sent now; 0 when there is nothing to ask for."""
        if not self.wanted.is_set():
            return 0
        self._number += 1
        self._questions.append((self._number, self._clock_s()))
        return self._number

    def hear(self, number: int) -> None:
        """The question of this number was answered."""
        sent_s = next((sent_s for asked, sent_s in self._questions if asked == number), None)
        if sent_s is None:
            return
        while self._questions and self._questions[0][0] <= number:
            self._questions.popleft()
        self._heard_s = sent_s
        self.renewed.set()

    def until_s(self, fence_ms: int) -> float:
        """When a fenced task has to be dead, on the runtime's clock; 0 when no leader has answered so far."""
        return self._heard_s + fence_ms / 1000 if self._heard_s is not None else 0

    def may_start(self, fence_ms: int) -> bool:
        """Whether there is enough time left for a start to be worth while: more than half of it."""
        return self._clock_s() + fence_ms / 2000 < self.until_s(fence_ms)
