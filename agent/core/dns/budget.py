"""How many questions each client of the name server may ask: a bucket of tokens for each, filled at a steady rate.

Two rules: whoever has not asked for a while has a full bucket, so it need not be remembered; and one client's questions
take nothing from another one's bucket.

    RATE 5,000 a second, BURST 10,000: of 12,000 questions at once 10,000 are answered, and the next one 0.2 ms later.
"""

from collections import Counter
from typing import Final

RATE: Final = 5_000.0
"""Tokens a second. An answer takes 20 to 30 µs: a task may use about an eighth of a processor that is not its own."""
BURST: Final = 10_000.0
MOST: Final = 4_096
"""Clients that are remembered. A node has 253 addresses for its tasks, and others ask in checks of the network only."""


class Budget:
    """Times are in seconds, on a clock that never goes back."""

    def __init__(self, *, rate: float = RATE, burst: float = BURST, most: int = MOST) -> None:
        assert rate > 0, "a bucket that is never filled"
        assert burst >= 1, "a bucket in which no token has room"
        self._rate = rate
        self._burst = burst
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted
        self.refused: Counter[str] = Counter()
        """Questions that were not answered, by client."""

    def spend(self, client: str, now: float) -> float:
        """0: the client had a token, which it has no more. Otherwise the seconds until it has one again."""
        tokens = self._tokens(client, now)
        if tokens < 1:
            return (1 - tokens) / self._rate
        if client not in self._buckets and len(self._buckets) >= self._most:
            self._forget(now)
        self._buckets[client] = (tokens - 1, now)
        return 0.0

    def refuse(self, client: str) -> bool:
        """Note that one was not answered; whether it is the client's first one, as far as is remembered."""
        if client not in self.refused and len(self.refused) >= self._most:
            self.refused.clear()
        self.refused[client] += 1
        return self.refused[client] == 1

    def _tokens(self, client: str, now: float) -> float:
        tokens, at = self._buckets.get(client, (self._burst, now))
        return min(self._burst, tokens + (now - at) * self._rate)

    def _forget(self, now: float) -> None:
        """Those whose buckets are full again; when that is nobody, all: they get more than they should, once."""
        kept = {client: held for client, held in self._buckets.items() if self._tokens(client, now) < self._burst}
        self._buckets = kept if len(kept) < self._most else {}
