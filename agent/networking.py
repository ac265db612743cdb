"""The addresses and ports that this node gives to its tasks, and the node's part of the network behind them.

Three rules: an address or port is noted as given before anything is made with it, and freed after everything is gone;
the node's own part (routes, firewall, services) is made by one task, again and again until it succeeds; and an
assignment counts as applied only when that has succeeded for it or for a later one of the same session.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from agent import ports
from agent.core import retry
from agent.core.addresses import AddressPool, PortTable
from agent.core.assignments import Assignments
from agent.core.network import Addresses, Attachment, PublishedPort
from agent.errors import AgentError, Temporary
from protos import families
from protos.families import V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as dpb

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    network: dpb.NodeNetwork
    services: Mapping[str, dpb.NetworkService] = field(default_factory=lambda: MappingProxyType({}))
    session: int = 0
    sequence: int | None = None


class NodeNetworking:
    """One for the agent. `on_ready` is called whenever the network has become what the leader asked for."""

    def __init__(
        self,
        network: ports.Network,
        *,
        names: ports.Names,
        now_ms: Callable[[], int],
        chance: random.Random,
        on_ready: Callable[[], None],
    ) -> None:
        self._network = network
        self._names = names
        self._now_ms = now_ms
        self._chance = chance
        self._on_ready = on_ready
        self._pools: dict[Family, AddressPool] = {}
        self._ports = PortTable()
        self._attached: dict[str, Attachment] = {}
        self._wanted: _Wanted | None = None
        self._touched: frozenset[str] = frozenset()  # services that are wanted otherwise than they were applied
        self._configured: dpb.NodeNetwork | None = None
        self._changed = asyncio.Event()
        self._session = 0
        self._applied: int | None = None  # the number of an assignment that nobody has asked for yet
        self._has_applied = asyncio.Event()
        self._problem = "the leader has not given this node a range of addresses yet"

    def restore(self, attachment: Attachment, *, attached: bool) -> None:
        """Note what a task of an earlier agent has. Comes after the first `want`."""
        task_id, addresses = attachment.task_id, families.every(attachment)
        self._claim(attachment)
        if addresses or attached:  # one that has ended gave back its ports with its address
            self._ports.take(_keys(attachment.ports), task_id)
        if attached and addresses:
            self._attached[task_id] = attachment

    def resume(self, last: Iterable[str]) -> None:
        """The addresses that an earlier agent gave last. Comes after the first `want`, before `restore`."""
        for address in last:
            if families.of(address) in self._pools:
                self._pools[families.of(address)].resume(address)

    def begin_session(self) -> None:
        """Numbers of assignments start anew."""
        self._session += 1
        self._applied = None
        self._has_applied.clear()

    def want(self, assigned: Assignments) -> None:
        """What the leader says of the network and the services."""
        network = assigned.network
        if network is None or not families.told(network, "subnet"):
            return
        self._renew_pools(network)
        self._touched |= assigned.touched
        self._wanted = _Wanted(
            network=network, services=assigned.services, session=self._session, sequence=assigned.sequence
        )
        self._changed.set()

    def _renew_pools(self, network: dpb.NodeNetwork) -> None:
        subnets = {family: family.get(network, "subnet") for family in families.told(network, "subnet")}
        if subnets == {family: str(pool.subnet) for family, pool in self._pools.items()}:
            return
        self._pools = {
            family: known if (known := self._pools.get(family)) and str(known.subnet) == subnet else AddressPool(subnet)
            for family, subnet in subnets.items()
        }
        for attachment in self._attached.values():
            self._claim(attachment)

    def _claim(self, attachment: Attachment) -> None:
        for family, pool in self._pools.items():
            if address := family.get(attachment, "address"):
                pool.claim(address, attachment.task_id)

    async def applied(self) -> int:
        """Wait until another assignment of this session is applied; returns its number."""
        while self._applied is None:
            self._has_applied.clear()
            await self._has_applied.wait()
        sequence, self._applied = self._applied, None
        return sequence

    async def run(self) -> None:
        """Keep the node's part what it should be; ends only by being cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._network.run())
            group.create_task(self._keep())

    async def _keep(self) -> None:
        failure = None
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = self._wanted
            assert wanted is not None, "a change without a network"
            try:
                await self._apply(wanted)
            except AgentError as error:
                failure = retry.temporary(
                    failure,
                    reason=error.reason,
                    message=error.message,
                    now_ms=self._now_ms(),
                    jitter=self._chance.random(),
                )
                self._problem = f"the network of this node is not ready: {error.message}"
                log.warning("network.configure failed", error=error.message, attempts=failure.attempts)
                await self._pause((failure.retry_at - self._now_ms()) / 1000, wanted.network)
                self._changed.set()
            else:
                failure = None

    async def _pause(self, delay_s: float, failed: dpb.NodeNetwork) -> None:
        """Until it is time to try again, or the leader asks for another network than the one that failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                while self._wanted is not None and self._wanted.network == failed:
                    await self._changed.wait()
                    self._changed.clear()

    async def _apply(self, wanted: _Wanted) -> None:
        touched, self._touched = self._touched, frozenset()
        try:
            if wanted.network != self._configured:
                await self._network.configure(wanted.network, wanted.services, tuple(self._attached.values()))
                await self._names.serve()
                self._configured = wanted.network
                self._on_ready()
            else:
                await self._network.serve(wanted.services, touched)
        except AgentError:
            self._touched |= touched
            raise
        if wanted.session == self._session and wanted.sequence is not None:
            self._applied = wanted.sequence
            self._has_applied.set()

    def reserve(self, task_id: str, published: tuple[PublishedPort, ...]) -> Addresses:
        """Give the task an address of each family, and the ports it publishes. Raises Temporary."""
        if not self._pools or self._configured is None:
            raise Temporary(self._problem, reason="NetworkNotReady")
        taken = self._ports.take(_keys(published), task_id)
        if taken is not None:
            port, owner = taken
            raise Temporary(f"port {port} of this node is taken by task {owner}", reason="PortTaken")
        given: dict[Family, str] = {}
        for family, pool in self._pools.items():
            address = pool.take(task_id)
            if address is None:
                for earlier, text in given.items():
                    self._pools[earlier].free(text, task_id)
                raise Temporary(f"all addresses of {pool.subnet} are taken", reason="NoAddress")
            given[family] = address
        return Addresses(address=given.get(V4, ""), address6=given.get(V6, ""))

    async def attach(self, attachment: Attachment) -> None:
        """Attach the task with the address and the users that it was given. Raises Temporary."""
        if self._configured is None:
            raise Temporary(self._problem, reason="NetworkNotReady")
        self._attached[attachment.task_id] = attachment
        await self._network.attach(attachment)

    async def detach(self, attachment: Attachment) -> None:
        """Detach the task and take back its addresses and ports."""
        await self._network.detach(attachment)
        self._attached.pop(attachment.task_id, None)
        self._ports.free(attachment.task_id)
        for family, pool in self._pools.items():
            pool.free(family.get(attachment, "address"), attachment.task_id)

    def namespace_of(self, task_id: str) -> str:
        """The path by which a container joins the task's network."""
        return self._network.namespace_of(task_id)

    def users_of(self, task_id: str) -> str:
        """The path by which it joins the user namespace that its network belongs to."""
        return self._network.users_of(task_id)


def _keys(published: tuple[PublishedPort, ...]) -> list[tuple[int, int]]:
    return [(port.protocol, port.published) for port in published]
