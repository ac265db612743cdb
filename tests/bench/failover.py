"""Three control planes and two nodes: how long nobody leads when the leader is lost, and when agents are back.

The blows: the process is killed; its whole machine goes off, with its member of etcd; it stands still; its cable is
pulled. Each case of a blow has a twin: the time from the next leader's beginning until it reaches every node, taken in
the same rounds.
"""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from deploy.local import cluster as local_cluster
from protos.orch.v1 import control_pb2
from tests.bench.measure import Case
from tests.support import cluster, failover
from tests.support.waiting import until

KILLS, OTHERS = 20, 10
SETTLED_S = 60
APART_S = 2.0
"""In which a new leader has had the store led on another machine (docs/high-availability.md): a machine that is lost
earlier takes both leaders with it.
"""
LEADS_S, AGENTS_S = 5.0, 2.0


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """The cluster is up inside the block."""
    with cluster.running(nodes=2, control_planes=3) as up:
        up.apply_hello("steady", replicas=4)
        struck = Struck(up)
        blows = ((struck.killed, KILLS), (struck.off, OTHERS), (struck.frozen, OTHERS), (struck.cut_off, OTHERS))
        yield list(itertools.chain.from_iterable(_twins(struck, blow, rounds) for blow, rounds in blows))


def _twins(struck: "Struck", blow: Callable[[], failover.Times], rounds: int) -> Sequence[Case]:
    """The case of a blow, and that of the agents' return in its rounds."""
    name = f"failover.{blow.__name__}"
    return [
        _case(f"{name}_leads", rounds, LEADS_S, functools.partial(struck.leads_s, blow)),
        _case(f"{name}_agents", rounds, AGENTS_S, functools.partial(struck.agents_s, blow)),
    ]


def _case(name: str, rounds: int, mark: float, ours: Callable[[], float]) -> Case:
    return Case(name=name, unit="s", ours=ours, peer=None, peer_name="", rounds=rounds, mark=mark, each=True)


class Struck:
    """The cluster, and what it has taken."""

    def __init__(self, up: cluster.LocalCluster) -> None:
        self._up = up
        self._agents_s: dict[str, list[float]] = {}

    def leads_s(self, blow: Callable[[], failover.Times]) -> float:
        """A round. What it says of the agents is kept for their case."""
        self._settle()
        times = blow()
        self._agents_s.setdefault(blow.__name__, []).append(times.agents_s)
        return times.leads_s

    def agents_s(self, blow: Callable[[], failover.Times]) -> float:
        """The next of the times that were kept."""
        return self._agents_s[blow.__name__].pop(0)

    def killed(self) -> failover.Times:
        """The leader's process, which is started again."""
        return failover.measure(self._up, functools.partial(failover.kill, self._up), kills=True)

    def off(self) -> failover.Times:
        """The leader's machine, which is switched on again."""
        old = failover.leader_of(self._up)
        try:
            return failover.measure(self._up, functools.partial(local_cluster.kill_node, self._up.folder))
        finally:
            local_cluster.start_node(self._up.folder, old)

    def frozen(self) -> failover.Times:
        """The leader's process, for as long as it takes."""
        with failover.frozen(self._up, failover.leader_of(self._up)):
            return failover.measure(self._up, functools.partial(failover.freeze, self._up))

    def cut_off(self) -> failover.Times:
        """The leader's machine, for as long as it takes."""
        with failover.cut_off(self._up, failover.leader_of(self._up)):
            return failover.measure(self._up, functools.partial(failover.cut, self._up))

    def _settle(self) -> None:
        """All agree who leads, none of them from hearsay, the service is whole, and nothing is left to hand over."""

        def agreed() -> bool:
            return len({self._leader_by(name) for name in self._up.plan.instance_names} | {""}) == 2

        until(agreed, what="all control planes agree", timeout_s=SETTLED_S)
        self._up.await_whole("steady", 4, timeout_s=SETTLED_S)
        time.sleep(APART_S)

    def _leader_by(self, name: str) -> str:
        with contextlib.suppress(*failover.NO_ANSWER), failover.dialed(self._up, name) as stub:
            answer = stub.Version(control_pb2.VersionRequest(), timeout=failover.CALL_S)
            return answer.leader if not answer.store_problem else f"{name} is without a store"
        return f"{name} is not there"
