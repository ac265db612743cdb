"""Tries the ways from this node to the others, to names and to services.

Three rules: every try ends within its time; a finding names what was tried and what came of it, so that whoever reads
it knows where to look; and what cannot be known is said to be unknown, neither good nor bad.

    nodes      a packet as large as tasks may send, from this node's gateway address to the other's, in one piece; and a
               question to the other's name server by UDP, which answers everybody, if only that it does not serve them
    names      the name server of this node, then the name of each service
    services   a connection to each TCP port of each service that has an address, and an empty datagram to each UDP port
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

from agent.adapters import nameclient, overlay
from agent.adapters.echo import Echo
from agent.adapters.netlink import Netlink
from agent.core.dns import wire
from agent.core.overlay import Impossible, gateway
from protos import families
from protos.families import V4, V6, Family
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

AT_ONCE = 64
TRIES = 2
"""A single lost packet is no finding."""
SMALL_BYTES = 64
ZONE = "orch"

Findings = list[cpb.NetworkFinding]
Attempt = Callable[[], Awaitable[float]]
"""Answers with the seconds that it took. Raises Broken."""


class Unknown(Exception):  # noqa: N818 - named after what is so
    """It cannot be told whether something works; the text says why."""


class Broken(Exception):  # noqa: N818 - named after what is so
    """Something does not work; the text says what came of it."""


class NetworkChecks:
    """One for the agent. `node_address`: by which other nodes reach this one."""

    def __init__(self, node_address: str, *, name_port: int = nameclient.PORT) -> None:
        self._node_address = node_address
        self._name_port = name_port

    async def run(self, request: dpb.NetworkCheckRequest) -> Findings:
        """Everything that was asked for. What is broken is a finding, and never raised."""
        nodes, names, services = await asyncio.gather(
            self._nodes(request.network, request.timeout / 1000),
            self._names(request),
            _all(_ports(request.services, families.told(request.network, "subnet"), request.timeout / 1000)),
        )
        return [*nodes, *names, *services]

    async def _nodes(self, network: dpb.NodeNetwork, timeout_s: float) -> Findings:
        try:
            mtu = await asyncio.to_thread(self._mtu, network)
        except (Impossible, OSError) as error:
            return [cpb.NetworkFinding(target="this node", what="its network", problem=str(error))]
        had = families.told(network, "subnet")
        ways = [
            (peer.node_id, gateway(family.get(network, "subnet")), gateway(subnet))
            for peer in network.peers
            for family in had
            if (subnet := family.get(peer, "subnet"))
        ]

        def named(target: str) -> str:
            return f"{V6.label} " if len(had) > 1 and families.of(target) is V6 else ""

        def reaching(way: tuple[str, str, str]) -> Awaitable[Findings]:
            node_id, source, target = way
            what = f"{named(target)}packets of {mtu} bytes"
            return _tried(node_id, what, lambda: _reach(target, source, mtu, timeout_s))

        def by_udp(way: tuple[str, str, str]) -> Awaitable[Findings]:
            node_id, _, target = way
            what = f"{named(target)}UDP, a question to its name server"
            return _tried(node_id, what, lambda: _greet((target, self._name_port), timeout_s))

        return await _all([*map(reaching, ways), *map(by_udp, ways)])

    def _mtu(self, network: dpb.NodeNetwork) -> int:
        with Netlink() as netlink:
            return overlay.plan_of(netlink, network, self._node_address).mtu

    async def _names(self, request: dpb.NetworkCheckRequest) -> Findings:
        """Without a server no name needs to be asked for."""
        had = families.told(request.network, "subnet")
        if not had:
            return []
        server = gateway(families.every(request.network, "subnet")[0]), self._name_port
        timeout_s = request.timeout / 1000

        def asking(service: dpb.NetworkService) -> Awaitable[Findings]:
            name = f"{service.name}.{service.namespace}.{ZONE}"
            return _tried(_label(service), f"name {name}", lambda: _resolve(server, name, service, had, timeout_s))

        first = await _tried("names", f"name server {server[0]}", lambda: _greet(server, timeout_s))
        return first if first[0].problem else [*first, *await _all(map(asking, request.services))]


async def _all(tries: Iterable[Awaitable[Findings]]) -> Findings:
    """So many at once as are good for the node."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def limited(one: Awaitable[Findings]) -> Findings:
        async with limit:
            return await one

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(limited(one)) for one in tries]
    return [finding for task in tasks for finding in task.result()]


async def _tried(target: str, what: str, attempt: Attempt) -> Findings:
    finding = cpb.NetworkFinding(target=target, what=what)
    try:
        finding.microseconds = max(1, round(await attempt() * 1_000_000))
    except Unknown as unknown:
        finding.unknown = str(unknown)
    except Broken as broken:
        finding.problem = str(broken)
    except OSError as error:
        finding.problem = os.strerror(error.errno) if error.errno else str(error)
    return [finding]


# What is tried ------------------------------------------------------------------------------------------------------


async def _reach(target: str, source: str, mtu: int, timeout_s: float) -> float:
    """When small packets pass and large ones do not, the size that passes says which device or tunnel is in the way."""
    echo = Echo(source)
    try:
        answered: dict[int, float] = {}
        for _ in range(TRIES):
            answered |= await echo.ask(target, [SMALL_BYTES, mtu], timeout_s=timeout_s)
            if mtu in answered:
                return answered[mtu]
        if not answered:
            raise Broken(f"no answer from {target} within {timeout_s:g} s")
        largest = await echo.largest(target, below=mtu, timeout_s=timeout_s)
        raise Broken(f"packets of {mtu} bytes do not pass; the largest that do have {largest or SMALL_BYTES}")
    finally:
        echo.close()


async def _greet(server: tuple[str, int], timeout_s: float) -> float:
    began = time.monotonic()
    await _question(server, ZONE, wire.SOA, timeout_s)
    return time.monotonic() - began


async def _resolve(
    server: tuple[str, int], name: str, service: dpb.NetworkService, had: Iterable[Family], timeout_s: float
) -> float:
    """Of both families, when there are two: the time of the slower one."""
    return max([await _resolve_one(server, name, service, family, timeout_s) for family in had])


async def _resolve_one(
    server: tuple[str, int], name: str, service: dpb.NetworkService, family: Family, timeout_s: float
) -> float:
    began = time.monotonic()
    answer = await _question(server, name, wire.A if family is V4 else wire.AAAA, timeout_s)
    took_s = time.monotonic() - began
    stands = families.every(service)
    expected = {family.get(one, "address") for one in ((service,) if stands else service.endpoints)} - {""}
    got = nameclient.addresses(answer)
    if answer.code != wire.NOERROR:
        raise Broken(f"the name server answers with code {answer.code} instead of {_listed(expected)}")
    if bool(got) != bool(expected) or not got <= expected:
        raise Broken(f"the name server answers {_listed(got)} instead of {_listed(expected)}")
    return took_s


async def _question(server: tuple[str, int], name: str, kind: int, timeout_s: float) -> wire.Answer:
    where = f"{families.bracketed(server[0])}:{server[1]}"
    for left in reversed(range(TRIES)):
        try:
            return await nameclient.ask(server, name, kind, timeout_s=timeout_s)
        except ConnectionRefusedError:
            raise Broken(f"nobody answers at {where}: no name server runs there") from None
        except TimeoutError:
            if not left:
                raise Broken(f"no answer from {where} within {timeout_s:g} s") from None
    raise AssertionError("the last try returns or raises")


def _ports(
    services: Iterable[dpb.NetworkService], had: Collection[Family], timeout_s: float
) -> Iterator[Awaitable[Findings]]:
    """A family that none of a service's tasks has is not tried: the service refuses there."""
    for service in services:
        for family in families.told(service, "address"):
            has_it = any(family.get(one, "address") for one in service.endpoints) or not service.endpoints
            for port in service.ports if has_it and (family in had or not had) else ():
                yield _port(service, port, family.get(service, "address"), timeout_s)


async def _port(service: dpb.NetworkService, port: pb.Port, address: str, timeout_s: float) -> Findings:
    is_udp = port.protocol == pb.PROTOCOL_UDP
    what, attempt = (f"UDP port {port.target}", _send) if is_udp else (f"port {port.target}", _connect)
    return await _tried(_label(service), f"{what} at {address}", lambda: attempt(address, port.target, timeout_s))


async def _connect(address: str, port: int, timeout_s: float) -> float:
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        raise Broken(f"no connection within {timeout_s:g} s") from None
    took_s = time.monotonic() - began
    writer.transport.abort()
    return took_s


async def _send(address: str, port: int, timeout_s: float) -> float:
    """An empty datagram. An answer is good, a refusal is bad, and silence is what most servers have for such a
    question: it may be on its way, lost, or with a task that does not care.
    """
    loop, began = asyncio.get_running_loop(), time.monotonic()
    kind = socket.AF_INET6 if families.of(address) is V6 else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        asking.connect((address, port))
        for _ in range(TRIES):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s / TRIES):
                    await loop.sock_sendall(asking, b"")
                    await loop.sock_recv(asking, 1)
                    return time.monotonic() - began
    raise Unknown(f"not refused, and no answer within {timeout_s:g} s, which UDP does not promise")


def _label(service: dpb.NetworkService) -> str:
    return f"{service.namespace}/{service.name}"


def _listed(addresses: set[str]) -> str:
    return ", ".join(sorted(addresses)) or "nothing"
