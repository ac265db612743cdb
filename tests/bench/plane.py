"""The data plane of a node in a cluster of 1,000 services with ten endpoints each: what a change costs, nft included.

The peer is the table that kube-proxy's nftables mode would make of the same services, a chain with a rule and an
anonymous map for each port, changed by the same nft. It says nothing of kube-proxy itself.
"""

import asyncio
import contextlib
import itertools
import random
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.bench.measure import Case
from tests.support.fake_leader import endpoint, service
from tests.support.netlab import LabNode, new_namespace, remove_namespace
from tests.support.places import Place

SERVICES, ENDPOINTS = 1000, 10
CHANGES, PER_MINUTE = 500, 5000


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """Two namespaces, ours and the peer's."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orch-bench-", dir="/dev/shm")))
        for name in ("ours", "peer"):
            new_namespace(folder / name)
            stack.callback(remove_namespace, folder / name)
        Place(folder / "ours").run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")  # the node's own address
        node = LabNode(folder / "ours", folder / "state", number=1)
        stack.callback(node.close)
        ours, peer = Ours(node), Chains(Place(folder / "peer"))
        yield [
            Case(
                name="plane.one_endpoint",
                unit="ms cpu",
                ours=ours.one_endpoint,
                peer=peer.one_endpoint,
                peer_name="a chain for each port",
                rounds=50,
                mark=50,
                ratio_mark=1,
            ),
            Case(
                name="plane.everything_anew",
                unit="ms cpu",
                ours=ours.everything,
                peer=peer.everything,
                peer_name="a chain for each port",
                rounds=3,
            ),
            Case(
                name="plane.lag_at_5000_changes_a_minute",
                unit="ms",
                ours=ours.lag,
                peer=None,
                peer_name="the slowest of 500",
                rounds=1,
                mark=1000,
            ),
        ]


class Ours:
    """A node that knows all services."""

    def __init__(self, node: LabNode) -> None:
        self._node = node
        self._chance = random.Random(1)
        self._skipped = itertools.cycle(range(ENDPOINTS))
        node.services = {made.id: made for made in map(_service, range(SERVICES))}
        node.configure()

    def one_endpoint(self) -> float:
        """Processor time until one endpoint's coming or going is in effect."""
        changed = self._changed()
        return _cpu_ms_of(lambda: self._node.serve(changed))

    def everything(self) -> float:
        """As after an agent's start."""
        self._node.stop()
        self._node.start()
        return _cpu_ms_of(self._node.configure)

    def lag(self) -> float:
        """The longest time from a change to its effect, while they come one after the other."""
        return self._node.call(self._storm()) * 1000

    async def _storm(self) -> float:
        services, slowest = dict(self._node.services), 0.0

        async def settle(now: dict[str, dpb.NetworkService]) -> None:
            nonlocal slowest
            began = time.monotonic()
            await self._node.network.serve(now)
            slowest = max(slowest, time.monotonic() - began)

        async with asyncio.TaskGroup() as group:
            began = time.monotonic()
            for number in range(CHANGES):
                changed = self._changed()
                services = {**services, changed.id: changed}
                group.create_task(settle(services))
                await asyncio.sleep(max(0.0, began + number * 60 / PER_MINUTE - time.monotonic()))
        self._node.services = services
        return slowest

    def _changed(self) -> dpb.NetworkService:
        return _service(self._chance.randrange(SERVICES), without=next(self._skipped))


class Chains:
    """One chain for each port of each service, as kube-proxy makes them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._chance = random.Random(1)
        self._skipped = itertools.cycle(range(ENDPOINTS))
        self.everything()

    def one_endpoint(self) -> float:
        """Both ports of a service."""
        number, without = self._chance.randrange(SERVICES), next(self._skipped)
        lines = []
        for name, rule in _chains(_service(number, without=without)):
            lines += [f"flush chain inet chains {name}", f"add rule inet chains {name} {rule}"]
        return self._nft(lines)

    def everything(self) -> float:
        """The whole table."""
        lines = ["table inet chains", "delete table inet chains", "add table inet chains"]
        lines.append("add map inet chains services { type ipv4_addr . inet_proto . inet_service : verdict; }")
        keys = []
        for made in map(_service, range(SERVICES)):
            for (name, rule), port in zip(_chains(made), made.ports, strict=True):
                lines += [f"add chain inet chains {name}", f"add rule inet chains {name} {rule}"]
                keys.append(f"{made.address} . tcp . {port.target} : goto {name}")
        lines.append(f"add element inet chains services {{ {', '.join(keys)} }}")
        return self._nft(lines)

    def _nft(self, lines: Sequence[str]) -> float:
        command = ["nsenter", f"--net={self._place.path}", "nft", "-f", "-"]
        return _cpu_ms_of(lambda: subprocess.run(command, input="\n".join(lines), text=True, check=True, timeout=60))


def _chains(made: dpb.NetworkService) -> Iterator[tuple[str, str]]:
    ready = [each.address for each in made.endpoints if each.ready]
    for port in made.ports:
        places = ", ".join(f"{place} : {address}" for place, address in enumerate(ready))
        rule = f"meta l4proto tcp dnat ip to numgen random mod {len(ready)} map {{ {places} }}"
        yield f"service-{made.name}-{port.target}", rule


def _service(number: int, *, without: int = -1) -> dpb.NetworkService:
    """The one of that number, with one endpoint not ready."""
    first = number * ENDPOINTS
    members = [
        endpoint(f"10.112.{(first + place) // 200}.{(first + place) % 200 + 2}", ready=place != without)
        for place in range(ENDPOINTS)
    ]
    published = pb.Port(target=443, protocol=pb.PROTOCOL_TCP, published=10_000 + number, mode=pb.PUBLISH_MODE_INGRESS)
    ports = (pb.Port(target=80, protocol=pb.PROTOCOL_TCP), published)
    made = service(f"s{number}", *members, ports=ports)
    made.address = f"10.113.{number // 200}.{number % 200 + 1}"
    return made


def _cpu_ms_of(work: Callable[[], object]) -> float:
    before = _cpu_s()
    work()
    return (_cpu_s() - before) * 1000


def _cpu_s() -> float:
    """Of this process and the children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
