"""How fast something may be done: a bucket that fills at a steady rate, and that each takes one out of."""

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Pace:
    """Example: burst 20, 10 a second → 20 at once, and then one every 100 ms."""

    burst: int
    per_second: float
    _left: float = field(default=-1.0, init=False)
    _at_ms: int = field(default=0, init=False)

    def take(self, now_ms: int) -> bool:
        """Whether one more may be done now. A clock that was set back fills nothing."""
        self._fill(now_ms)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def is_full(self, now_ms: int) -> bool:
        """Whether it is as if nothing had been taken."""
        self._fill(now_ms)
        return self._left >= self.burst

    def _fill(self, now_ms: int) -> None:
        if self._left < 0:
            self._left, self._at_ms = float(self.burst), now_ms
        passed_s = max(0, now_ms - self._at_ms) / 1000
        self._left = min(float(self.burst), self._left + passed_s * self.per_second)
        self._at_ms = now_ms
