"""Which instance of the control plane an agent dials next.

Two rules. Nobody is asked twice while others have not been asked: whoever was lost, or knew of no leader, comes last.
And what the cluster tells of its instances is kept, and comes before what the command line says: an agent that starts
years later finds those that there are then.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

MOST = 32
"""More are no control plane of a cluster of ours."""

log = structlog.get_logger()


class Servers:
    """`configured`: what the agent was started with; `learnt`: what it was told before. `keep` stores it."""

    def __init__(
        self,
        configured: Sequence[str],
        learnt: Sequence[str] = (),
        keep: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        assert configured, "an agent needs the address of at least one server"
        self._configured = list(configured)
        self._keep = keep
        self._learnt = list(learnt)
        self._order = self._all()

    @property
    def next(self) -> str:
        """Whom to dial."""
        return self._order[0]

    @property
    def count(self) -> int:
        """How many there are to choose from."""
        return len(self._order)

    def pass_over(self, address: str) -> None:
        """It is dialed after all others, whether it is one of them or was named by one."""
        if address in self._order:
            self._order.remove(address)
            self._order.append(address)

    def learn(self, addresses: Sequence[str]) -> None:
        """Those that the cluster has now. None, or too many, is no news."""
        told = list(dict.fromkeys(addresses))
        if not 0 < len(told) <= MOST or told == self._learnt:
            return
        self._learnt = told
        everybody = self._all()
        self._order = [one for one in self._order if one in everybody]
        self._order += [one for one in everybody if one not in self._order]
        self._keep(told)
        log.info("the control planes of the cluster", addresses=",".join(told))

    def _all(self) -> list[str]:
        return list(dict.fromkeys([*self._learnt, *self._configured]))


def load(path: Path) -> Sequence[str]:
    """What was kept. A file that cannot be read is as good as none: the command line names a server."""
    try:
        said = json.loads(path.read_bytes())
        return [str(one) for one in said["servers"]][:MOST]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the addresses that were learnt cannot be read", path=str(path), why=str(error))
        return []


def text(addresses: Sequence[str]) -> bytes:
    """As `load` reads it."""
    return json.dumps({"servers": list(addresses)}).encode() + b"\n"
