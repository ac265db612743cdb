"""The node's part of the network: a veth pair and a namespace a task, and the routes that lead to them.

    task   eth0  its address/32 (of IPv6 /128), everything goes to the node's end
             │
    node   orch-…   no address, no bridge: the route `address/32 dev orch-…` leads there
           orch0    a device that leads nowhere; it has the gateway's addresses, the first ones of the node's subnets

Two rules: everything is made inside the agent's own network namespace and is recognisable as ours (device `orch0`,
links `orch-…`, routes with protocol numbers of ours, nftables table `orch`); and nobody is asked who has an address:
both ends are told, hardware addresses are computed from IP addresses, and packets from a task with any source but
its own are dropped (rp_filter; for IPv6, which has none, a rule of the node's table).
"""

import asyncio
import hashlib
import os
import socket
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from agent.adapters import overlay, rules
from agent.adapters.layout import Layout
from agent.adapters.netlink import Netlink, entered
from agent.adapters.rules import Rules
from agent.adapters.sysctls import Parameters
from agent.adapters.ways import Ways
from agent.core.network import Attachment
from agent.core.overlay import gateway, hardware_address
from agent.core.plane import Plane
from agent.errors import Temporary
from protos import families
from protos.families import V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as dpb

DEVICE = "orch0"
LINK_PREFIX = "orch-"
INSIDE = "eth0"
_ANYWHERE = {V4: "0.0.0.0/0", V6: "::/0"}


class Namespaces(Protocol):
    """Whoever makes network namespaces, and the user namespaces that they belong to: the runtime."""

    async def make_network_namespace(self, path: Path, *, owner: Path, root_id: int) -> None: ...

    async def remove_network_namespace(self, path: Path, *, owner: Path) -> None: ...


class RoutedNetwork:
    """A Network on this machine, or in the network namespace that the agent runs in."""

    def __init__(
        self, layout: Layout, namespaces: Namespaces, *, node_address: str, trusted: Sequence[str] = ()
    ) -> None:
        self._layout = layout
        self._namespaces = namespaces
        self._gateways: Mapping[Family, str] = {}
        self._ways = Ways(node_address)
        self._plane = Plane(trusted, outer=families.of(node_address))
        self._rules = Rules(self._plane)
        self._parameters = Parameters(layout.kernel)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rules.run())
            group.create_task(self._ways.run())

    async def configure(
        self,
        network: dpb.NodeNetwork,
        services: Mapping[str, dpb.NetworkService],
        attached: tuple[Attachment, ...],
    ) -> None:
        try:
            await asyncio.to_thread(self._configure, network)
        except OSError as error:
            raise Temporary(f"the node's network was not made: {error}", reason="NetworkFailed") from error
        for attachment in attached:
            self._plane.attach(attachment)
        self._plane.serve(services)
        self._plane.configure(network)
        await self._carry_out()

    async def serve(self, services: Mapping[str, dpb.NetworkService], touched: Collection[str] | None = None) -> None:
        self._plane.serve(services, touched)
        await self._carry_out()

    async def attach(self, attachment: Attachment) -> None:
        path, owner = self._layout.netns(attachment.task_id), self._layout.userns(attachment.task_id)
        await self._remove(attachment.task_id)
        self._plane.attach(attachment)
        with self._rules.changed() as noted:  # carried out while everything but the last step is done
            await self._namespaces.make_network_namespace(path, owner=owner, root_id=attachment.root_id)
            try:
                await asyncio.to_thread(self._connect, attachment, str(path))
                await self._rules.settled(noted)
                await asyncio.to_thread(self._open, attachment)
            except OSError as error:
                raise Temporary(f"task {attachment.task_id}: {error}", reason="NetworkFailed") from error

    async def detach(self, attachment: Attachment) -> None:
        await self._remove(attachment.task_id)
        self._plane.detach(attachment.task_id)
        await self._carry_out()

    async def _carry_out(self) -> None:
        with self._rules.changed() as noted:
            await self._rules.settled(noted)

    async def attached(self) -> frozenset[str]:
        """The route to a task is what is made last."""
        with Netlink() as netlink:
            reached = {index for _, index in netlink.device_routes()}
            links = {link.name for link in netlink.links() if link.index in reached}
        tasks = [folder.name for folder in self._layout.tasks.iterdir()]
        return frozenset(name for name in tasks if link_name(name) in links and _is_pinned(self._layout.netns(name)))

    def namespace_of(self, task_id: str) -> str:
        return str(self._layout.netns(task_id))

    def users_of(self, task_id: str) -> str:
        return str(self._layout.userns(task_id))

    async def _remove(self, task_id: str) -> None:
        path, owner = self._layout.netns(task_id), self._layout.userns(task_id)
        if _is_link(link_name(task_id)):
            try:
                await asyncio.to_thread(_delete_link, link_name(task_id))
            except OSError as error:
                raise Temporary(f"task {task_id}: {error}", reason="NetworkFailed") from error
        if path.exists() or owner.exists():
            await self._namespaces.remove_network_namespace(path, owner=owner)

    # In a thread

    def _configure(self, network: dpb.NodeNetwork) -> None:
        had = families.told(network, "subnet")
        gateways = {family: gateway(family.get(network, "subnet")) for family in had}
        with Netlink() as netlink:
            if V4 in gateways:
                self._parameters.set("net/ipv4/ip_forward", "1")
                # What a tunnel learns of a narrow way is told to the tasks, whose large packets would vanish otherwise.
                self._parameters.set("net/ipv4/ip_forward_use_pmtu", "1")
                self._parameters.set("net/ipv4/conf/all/route_localnet", "1")
            if V6 in gateways:
                _forward_ipv6(self._parameters)
            index = _make_device(netlink, tuple(gateways.values()))
            _set_device_routes(netlink, index, network)
            self._gateways = gateways
            self._ways.make(netlink, network)

    def _connect(self, attachment: Attachment, namespace: str) -> None:
        """The pair of links, the task's end of it ready and the node's end still down."""
        name, addresses = link_name(attachment.task_id), _addresses(attachment)
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with Netlink() as netlink:
                netlink.add_veth(
                    name,
                    hardware_address=self._card(),
                    mtu=self._ways.mtu,
                    peer=INSIDE,
                    peer_namespace_fd=fd,
                    peer_address=_card(attachment),
                )
                if V6 in addresses:
                    netlink.set_no_own_addresses(socket.if_nametoindex(name))
        finally:
            os.close(fd)
        Path("/proc/sys/net/ipv4/conf", name, "rp_filter").write_text("1")
        _connect_inside(namespace, addresses, self._gateways, gateway_card=self._card())

    def _open(self, attachment: Attachment) -> None:
        """From here on the task sends and receives."""
        index = socket.if_nametoindex(link_name(attachment.task_id))
        with Netlink() as netlink:
            netlink.set_up(index)
            for family, address in _addresses(attachment).items():
                netlink.set_neighbour(index, address, _card(attachment))
                netlink.set_device_route(f"{address}/{family.bits}", index, source=self._gateways.get(family, ""))

    def _card(self) -> bytes:
        """The hardware address of the node's end of every link."""
        assert self._gateways, "the node's network is made first"
        return hardware_address(next(iter(self._gateways.values())))


def leave() -> None:
    """Take all that is ours out of this network namespace: rules, links, routes and the device. Raises OSError."""
    rules.remove()
    with Netlink() as netlink:
        for link in netlink.links():
            if link.name.startswith(LINK_PREFIX) or link.name == DEVICE:
                netlink.delete_link(link.name)
        for destination, index in netlink.device_routes():
            netlink.delete_device_route(destination, index)
        overlay.leave(netlink)


def link_name(task_id: str) -> str:
    """The node's end of a task's veth pair: 15 characters are the most that the kernel takes."""
    return LINK_PREFIX + hashlib.sha256(task_id.encode()).hexdigest()[:10]


def _is_pinned(path: Path) -> bool:
    """After a reboot the pin is a plain file."""
    return os.path.ismount(path)


def _is_link(name: str) -> bool:
    """Mostly it is not there, and nobody need wait for a thread to learn that."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _delete_link(name: str) -> None:
    with Netlink() as netlink:
        netlink.delete_link(name)


def _addresses(attachment: Attachment) -> dict[Family, str]:
    return {family: family.get(attachment, "address") for family in families.told(attachment, "address")}


def _card(attachment: Attachment) -> bytes:
    """The hardware address of a task."""
    return hardware_address(families.every(attachment)[0])


def _make_device(netlink: Netlink, gateways: Sequence[str]) -> int:
    """The device that has the gateway's addresses, and no others but link-local ones; returns its index."""
    device = netlink.link(DEVICE)
    if device is None:
        netlink.add_dead_end(DEVICE, hardware_address=hardware_address(gateways[0]))
        device = netlink.link(DEVICE)
    assert device is not None, "the device that was just made"
    for address, index in netlink.address_pairs():
        given = ip_address(address)
        if index == device.index and address not in gateways and not given.is_link_local:
            netlink.delete_address(index, address, given.max_prefixlen)
    for address in gateways:
        netlink.add_address(device.index, address, ip_address(address).max_prefixlen)
    return device.index


def _set_device_routes(netlink: Netlink, index: int, network: dpb.NodeNetwork) -> None:
    """Addresses of the subnet that no task has lead to nobody, rather than out of the node and back; virtual addresses
    lead to the device, so that what the firewall has not translated comes to be refused.
    """
    had = families.told(network, "subnet")
    wanted = {family.get(network, name) for family in had for name in ("subnet", "service_range")}
    for destination, device in netlink.device_routes():
        if destination not in wanted and device in (0, index):
            netlink.delete_device_route(destination, device)
    for family in had:
        subnet, services = family.get(network, "subnet"), family.get(network, "service_range")
        netlink.set_unreachable(subnet)
        if services:
            netlink.set_device_route(services, index, source=gateway(subnet))


def _connect_inside(
    namespace: str, addresses: Mapping[Family, str], gateways: Mapping[Family, str], *, gateway_card: bytes
) -> None:
    with Netlink(namespace) as inside:
        device = inside.link(INSIDE)
        assert device is not None, "the device that was just made"
        if V6 in addresses:
            inside.set_no_own_addresses(device.index)
            _refuse_advertisements(namespace)
        for family, address in addresses.items():
            inside.add_address(device.index, address, family.bits)
        inside.set_up(device.index)
        for family in addresses:
            inside.set_neighbour(device.index, gateways[family], gateway_card)
            inside.set_device_route(f"{gateways[family]}/{family.bits}", device.index)
            inside.set_route(_ANYWHERE[family], gateways[family])


def _refuse_advertisements(namespace: str) -> None:
    """Nobody tells a task of ways and addresses but this node."""
    with entered(namespace):
        Path("/proc/sys/net/ipv6/conf", INSIDE, "accept_ra").write_text("0")


def _forward_ipv6(parameters: Parameters) -> None:
    """A machine that forwards hears no advertisements any more, by which it may have its own way out. One that heard
    them until now goes on: 2 means also while it forwards.
    """
    if Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1":
        return
    for folder in Path("/proc/sys/net/ipv6/conf").iterdir():
        if folder.name != "all" and (folder / "accept_ra").read_text().strip() == "1":
            parameters.set(f"net/ipv6/conf/{folder.name}/accept_ra", "2")
    parameters.set("net/ipv6/conf/all/forwarding", "1")
