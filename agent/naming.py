"""Names for the tasks of this node: what the leader says of services, answered at the gateway's address.

One rule: nothing here can fail the agent. A server that cannot listen is the network's problem: it is told with it, and
tried again with it.
"""

import contextlib
import socket
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Network
from pathlib import Path

from agent.adapters import dns, dnsupstream
from agent.core.dns.respond import Asker
from agent.core.dns.zone import Zone
from agent.core.hostfiles import Resolving
from agent.errors import Temporary
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

_NODE = Asker(served=True, namespace=None)
_STRANGER = Asker(served=False, namespace=None)


class Naming:
    """The Names of a node. `task_at` says which of its tasks has an address."""

    def __init__(
        self,
        task_at: Callable[[str], pb.Task | None],
        *,
        resolv_conf: Path = dnsupstream.RESOLV_CONF,
        port: int = dns.PORT,
        upstream_port: int = dnsupstream.PORT,
        note: Path | None = None,
        early: socket.socket | None = None,
    ) -> None:
        """`note`: where the address is written down, for the next agent; `early`: what this one has opened by it."""
        self._task_at = task_at
        self._gateway = ""
        self._zone = Zone()
        self._servers = dnsupstream.NodeServers(resolv_conf, port=upstream_port)
        self._server = dns.DnsServer(self._zone, self._servers, self._asker_of, port=port, early=early)
        self._note = note

    async def run(self) -> None:
        """Answer; ends only by being cancelled."""
        await self._server.run()

    def update(
        self, network: dpb.NodeNetwork | None, services: Mapping[str, dpb.NetworkService], touched: Collection[str]
    ) -> None:
        """What the leader says now. `touched`: the services that are others than at the last call."""
        if network is not None and network.subnet:
            self._gateway = self._servers.own_address = str(IPv4Network(network.subnet)[1])
            self._zone.configure(ranges=(network.cluster_range, network.service_range), address=self._gateway)
        self._zone.update(services, touched)

    async def serve(self) -> None:
        """Listen at the gateway's address, which is there. Raises Temporary."""
        await self._server.listen(self._gateway)
        if self._note is not None:
            self._note.write_text(self._gateway, encoding="ascii")

    async def resume(self) -> None:
        """Listen where an earlier agent did, if that address is still there; otherwise `serve` comes later."""
        if self._gateway:
            with contextlib.suppress(Temporary):
                await self._server.listen(self._gateway)

    def resolving(self) -> Resolving:
        """What a container's resolv.conf must say."""
        return Resolving(server=self._gateway, search=self._servers.search)

    @property
    def refused(self) -> Mapping[str, int]:
        """Questions that were dropped because their task asked too many, by its address."""
        return self._server.refused

    def _asker_of(self, address: str) -> Asker:
        task = self._task_at(address)
        if task is not None:
            outside = not self._zone.is_internal(task.meta.namespace, task.service)
            return Asker(served=True, namespace=task.meta.namespace, outside=outside)
        return _NODE if address == self._gateway else _STRANGER
