"""Names for the tasks of this node: what the leader says of services, answered at the gateway's address.

One rule: nothing here can fail the agent. A server that cannot listen is the network's problem: it is told with it, and
tried again with it.
"""

import contextlib
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import structlog

from agent.adapters import dns, dnsupstream
from agent.core import overlay
from agent.core.dns.respond import Asker
from agent.core.dns.zone import Zone
from agent.core.hostfiles import Resolving
from agent.errors import Temporary
from protos import families
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

_NODE = Asker(served=True, namespace=None)
_STRANGER = Asker(served=False, namespace=None)

log = structlog.get_logger()


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
        early: Sequence[socket.socket] = (),
    ) -> None:
        """`note`: where the addresses are written down, for the next agent; `early`: what this one has opened by it."""
        self._task_at = task_at
        self._network: dpb.NodeNetwork | None = None
        self._gateways: tuple[str, ...] = ()
        self._zone = Zone()
        self._servers = dnsupstream.NodeServers(resolv_conf, port=upstream_port)
        self._server = dns.DnsServer(self._zone, self._servers, self._asker_of, port=port, early=early)
        self._note = note
        self._noted = ""

    async def run(self) -> None:
        """Answer; ends only by being cancelled."""
        await self._server.run()

    def update(
        self, network: dpb.NodeNetwork | None, services: Mapping[str, dpb.NetworkService], touched: Collection[str]
    ) -> None:
        """What the leader says now. `touched`: the services that are others than at the last call."""
        if network is not self._network:
            self._configure(network)
        self._zone.update(services, touched)

    def _configure(self, network: dpb.NodeNetwork | None) -> None:
        self._network = network
        subnets = families.every(network, "subnet") if network is not None else ()
        if network is not None and subnets:
            self._gateways = self._servers.own_addresses = tuple(map(overlay.gateway, subnets))
            ranges = [*families.every(network, "cluster_range"), *families.every(network, "service_range")]
            self._zone.configure(ranges=ranges, addresses=self._gateways)

    async def serve(self) -> None:
        """Listen at the gateway's addresses, which are there. Raises Temporary."""
        await self._server.listen(*self._gateways)
        self._write_down(" ".join(self._gateways))

    def _write_down(self, addresses: str) -> None:
        """For the next agent. Without a note that one is only later in answering, so a full disk is no trouble here."""
        if self._note is None or addresses == self._noted:
            return
        beside = self._note.with_name(f"{self._note.name}.new")
        try:
            beside.write_text(addresses, encoding="ascii")
            beside.replace(self._note)
        except OSError as error:
            log.warning("where names are answered was not written down", error=str(error))
        else:
            self._noted = addresses

    async def resume(self) -> None:
        """Listen where an earlier agent did, if these addresses are still there; otherwise `serve` comes later."""
        if self._gateways:
            with contextlib.suppress(Temporary):
                await self._server.listen(*self._gateways)

    def resolving(self) -> Resolving:
        """What a container's resolv.conf must say: one server, at the first address, which all tasks here reach."""
        return Resolving(servers=self._gateways[:1], search=self._servers.search)

    @property
    def refused(self) -> Mapping[str, int]:
        """Questions that were dropped because their task asked too many, by its address."""
        return self._server.refused

    def _asker_of(self, address: str) -> Asker:
        task = self._task_at(address)
        if task is not None:
            outside = not self._zone.is_internal(task.meta.namespace, task.service)
            return Asker(served=True, namespace=task.meta.namespace, outside=outside)
        return _NODE if address in self._gateways else _STRANGER
