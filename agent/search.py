"""How an agent finds the leader: whom it dials next, how long it waits for an answer, and how long it rests.

Three rules. A leader whose session was lost is dialed once more, but not for long: the link alone may be broken, and
when it is not, another may lead already. Followers are told which leader was lost, so that they do not send the agent
back there. And the first redirect is followed at once; servers that point at each other are asked less and less often.

    lost ─► the same once more ─► server after server ─► redirected ─► the leader that it names ─► a session
"""

import random
from dataclasses import dataclass

from agent.servers import Servers

FIRST_REST_S = 0.1
LONGEST_REST_S = 2.0
AGAIN_TIMEOUT_S = 0.5
"""For the leader that was lost just now. One that lives answers well within it; one that is frozen never does."""
CONNECT_TIMEOUT_S = 1.0
"""Of the first round over all servers; then twice as long, and so on. With three of them: 1 s for the first three
tries, 2 s for the next three, then 4 s, and 5 s from then on.
"""
LONGEST_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """`patience_s`: how long its connection may take; `lost`: a leader that cannot be reached any more, if there is
    one; `named`: whether it is said to lead, rather than being one of the servers.
    """

    address: str
    patience_s: float
    lost: str
    named: bool


class Search:
    """`next` says whom to dial; then either `held` comes, or one of `redirected` and `failed`, which also end what was
    held. Those answer how many seconds to rest before the next.
    """

    def __init__(self, servers: Servers, chance: random.Random) -> None:
        self._servers = servers
        self._chance = chance
        self._leader, self._again, self._lost = "", "", ""
        self._held = False
        self._failures, self._redirects = 0, 0

    def next(self) -> Attempt:
        """Whom to dial now."""
        named, again = self._leader, self._again
        self._leader, self._again = "", ""
        return Attempt(
            address=again or named or self._servers.next,
            patience_s=AGAIN_TIMEOUT_S if again else self._patience_s(),
            lost=self._lost,
            named=bool(again or named),
        )

    def held(self) -> None:
        """There is a session. Whatever ends it, the search begins anew."""
        self._held, self._lost = True, ""
        self._failures, self._redirects = 0, 0

    def redirected(self, tried: Attempt, leader: str) -> float:
        """It does not lead. `leader`: who does, if it knows."""
        self._held = False
        self._failures += 1
        self._servers.pass_over(tried.address)
        self._leader = leader
        self._redirects += bool(leader)
        return 0.0 if leader and self._redirects <= 1 else self._rest_s()

    def failed(self, tried: Attempt) -> float:
        """It does not answer, or does not do so any more."""
        self._failures += 1
        if self._held:
            self._held, self._again = False, tried.address
        else:
            self._lost = tried.address if tried.named else self._lost
            self._servers.pass_over(tried.address)
        return self._rest_s()

    def _patience_s(self) -> float:
        rounds = self._failures // self._servers.count
        return min(LONGEST_CONNECT_S, CONNECT_TIMEOUT_S * 2.0 ** min(rounds, 10))

    def _rest_s(self) -> float:
        full = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(self._failures - 1, 10))
        return full * (0.5 + self._chance.random() / 2)
