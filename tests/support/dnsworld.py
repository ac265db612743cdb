"""A name server of ours between real clients and servers of the outside world."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from agent.adapters.dns import DnsServer
from agent.adapters.dnsupstream import NodeServers
from agent.core.dns.budget import Budget
from agent.core.dns.respond import Asker
from agent.core.dns.zone import Zone
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.support.nameserver import NameServer, serving

FIRST, SECOND = "127.0.0.21", "127.0.0.22"
TIMEOUT_S = 0.4


@dataclass(kw_only=True)
class World:
    """A name server of ours, and two of the outside world."""

    ours: DnsServer
    port: int
    outside: int
    """The port that other servers are asked at."""
    first: NameServer
    second: NameServer
    resolv_conf: Path
    strangers: set[str]

    async def ask(
        self, name: str, kind: str = "A", *, tcp: bool = False, source: str = "127.0.0.1", edns: int | None = 0
    ) -> dns.message.Message:
        """The answer."""
        query = dns.message.make_query(name, kind, use_edns=edns if edns is not None else -1)
        send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await send(query, "127.0.0.1", timeout=5, port=self.port, source=source)

    def use(self, *servers: str) -> None:
        self.resolv_conf.write_text("".join(f"nameserver {server}\n" for server in servers))


Worlds = Callable[..., AbstractAsyncContextManager[World]]


@contextlib.asynccontextmanager
async def world_of(
    resolv_conf: Path,
    *,
    idle_s: float = 5,
    budget: Budget | None = None,
    port: int = 0,
    early: Sequence[socket.socket] = (),
    listening: bool = True,
) -> AsyncIterator[World]:
    """It listens at 127.0.0.1, at a `port` that is free unless one is given."""
    outside, port = free_port(FIRST, SECOND), port or free_port("127.0.0.1")
    zone, strangers = Zone(), set[str]()
    endpoints = [dpb.Endpoint(task_id=f"big-{n}-a", slot=n, address=f"10.1.0.{n}", ready=True) for n in range(1, 201)]
    zone.update(
        {
            "s1": dpb.NetworkService(id="s1", namespace="default", name="web", address="10.96.0.7"),
            "s2": dpb.NetworkService(id="s2", namespace="default", name="big", endpoints=endpoints),
        }
    )
    ours = DnsServer(
        zone,
        NodeServers(resolv_conf, port=outside, timeout_s=TIMEOUT_S),
        lambda address: Asker(served=address not in strangers, namespace="default"),
        port=port,
        idle_s=idle_s,
        budget=budget,
        early=early,
    )
    async with serving(FIRST, outside) as first, serving(SECOND, outside) as second, asyncio.TaskGroup() as group:
        running = group.create_task(ours.run())
        if listening:
            await ours.listen("127.0.0.1")
        world = World(
            ours=ours,
            port=port,
            outside=outside,
            first=first,
            second=second,
            resolv_conf=resolv_conf,
            strangers=strangers,
        )
        world.use(FIRST)
        try:
            yield world
        finally:
            running.cancel()


def free_port(*hosts: str) -> int:
    """A port that nobody has at any of the hosts, over UDP and TCP."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for host in hosts:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    opened = stack.enter_context(socket.socket(socket.AF_INET, kind))
                    opened.bind((host, port))
            return port


def texts(answer: dns.message.Message) -> set[str]:
    return {record.to_text() for entry in answer.answer for record in entry}
