"""The node's part of the network: a bridge, a veth pair and a namespace a task, and the way to the other nodes.

Two rules: everything is made inside the agent's own network namespace and is recognisable as ours (bridge `orch0`,
links `orch-…`, routes with a protocol number of ours, nftables table `orch`); and a task's
hardware address is computed from its IP address, so that no neighbour's cache is ever wrong.
"""

import asyncio
import hashlib
import os
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

from agent.adapters.layout import Layout
from agent.adapters.netlink import Netlink
from agent.adapters.overlay import Overlay
from agent.core import firewall
from agent.core.network import Attachment
from agent.core.overlay import DEFAULT_MTU, hardware_address
from agent.errors import Temporary
from protos.orch.v1 import dispatcher_pb2 as dpb

BRIDGE = "orch0"
LINK_PREFIX = "orch-"
INSIDE = "eth0"
NFT_TIMEOUT_S = 10.0


class Namespaces(Protocol):
    """Whoever makes network namespaces, and the user namespaces that they belong to: the runtime."""

    async def make_network_namespace(self, path: Path, *, owner: Path, root_id: int) -> None: ...

    async def remove_network_namespace(self, path: Path, *, owner: Path) -> None: ...


class BridgedNetwork:
    """A Network on this machine, or in the network namespace that the agent runs in."""

    def __init__(self, layout: Layout, namespaces: Namespaces, *, node_address: str) -> None:
        self._layout = layout
        self._namespaces = namespaces
        self._node_address = node_address
        self._subnet: IPv4Network | None = None
        self._bridge_index = 0
        self._mtu = DEFAULT_MTU
        self._overlay = Overlay()
        self._published: dict[str, Attachment] = {}
        self._changing = asyncio.Lock()

    async def configure(self, network: dpb.NodeNetwork, attached: tuple[Attachment, ...]) -> None:
        async with self._changing:
            try:
                await asyncio.to_thread(self._configure, network, attached)
            except (OSError, subprocess.SubprocessError) as error:
                raise Temporary(f"the node's network was not made: {error}", reason="NetworkFailed") from error
            self._published = {attachment.task_id: attachment for attachment in attached if attachment.ports}

    async def attach(self, attachment: Attachment) -> None:
        path, owner = self._layout.netns(attachment.task_id), self._layout.userns(attachment.task_id)
        await self.detach(attachment)
        await self._namespaces.make_network_namespace(path, owner=owner, root_id=attachment.root_id)
        try:
            await asyncio.to_thread(self._connect, attachment, str(path))
            await self._publish(attachment)
        except (OSError, subprocess.SubprocessError) as error:
            raise Temporary(f"task {attachment.task_id}: {error}", reason="NetworkFailed") from error

    async def detach(self, attachment: Attachment) -> None:
        path, owner = self._layout.netns(attachment.task_id), self._layout.userns(attachment.task_id)
        try:
            await self._withdraw(attachment.task_id)
            await asyncio.to_thread(_delete_link, link_name(attachment.task_id))
        except (OSError, subprocess.SubprocessError) as error:
            raise Temporary(f"task {attachment.task_id}: {error}", reason="NetworkFailed") from error
        if path.exists() or owner.exists():
            await self._namespaces.remove_network_namespace(path, owner=owner)

    async def attached(self) -> frozenset[str]:
        with Netlink() as netlink:
            links = {link.name for link in netlink.links()}
        tasks = [folder.name for folder in self._layout.tasks.iterdir()]
        return frozenset(name for name in tasks if link_name(name) in links and _is_pinned(self._layout.netns(name)))

    def namespace_of(self, task_id: str) -> str:
        return str(self._layout.netns(task_id))

    def users_of(self, task_id: str) -> str:
        return str(self._layout.userns(task_id))

    # In a thread

    def _configure(self, network: dpb.NodeNetwork, attached: tuple[Attachment, ...]) -> None:
        subnet = IPv4Network(network.subnet)
        gateway = str(subnet[1])
        with Netlink() as netlink:
            bridge = netlink.link(BRIDGE)
            if bridge is None:
                netlink.add_bridge(BRIDGE, hardware_address=hardware_address(gateway), mtu=DEFAULT_MTU)
                bridge = netlink.link(BRIDGE)
            assert bridge is not None, "the bridge that was just made"
            netlink.add_address(bridge.index, gateway, subnet.prefixlen)
            self._bridge_index, self._subnet = bridge.index, subnet
            _write_sysctl("net/ipv4/ip_forward", "1")
            # What a tunnel learns of a narrow way is told to the tasks, whose large packets would vanish otherwise.
            _write_sysctl("net/ipv4/ip_forward_use_pmtu", "1")
            _write_sysctl(f"net/ipv4/conf/{BRIDGE}/route_localnet", "1")
            self._mtu = self._overlay.configure(netlink, network, self._node_address)
            if bridge.mtu != self._mtu:
                netlink.set_mtu(bridge.index, self._mtu)
        _nft(
            firewall.ruleset(
                bridge=BRIDGE, subnet=network.subnet, cluster_range=network.cluster_range, attached=attached
            )
        )

    def _connect(self, attachment: Attachment, namespace: str) -> None:
        """One message makes both ends; the address and the default route are set from inside."""
        assert self._subnet is not None, "the node's network is made first"
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with Netlink() as netlink:
                netlink.add_veth(
                    link_name(attachment.task_id),
                    master=self._bridge_index,
                    mtu=self._mtu,
                    peer=INSIDE,
                    peer_namespace_fd=fd,
                    peer_address=hardware_address(attachment.address),
                )
        finally:
            os.close(fd)
        with Netlink(namespace) as inside:
            device = inside.link(INSIDE)
            assert device is not None, "the device that was just made"
            inside.add_address(device.index, attachment.address, self._subnet.prefixlen)
            inside.set_up(device.index)
            inside.set_route("0.0.0.0/0", str(self._subnet[1]))

    async def _publish(self, attachment: Attachment) -> None:
        if attachment.ports:
            async with self._changing:
                await asyncio.to_thread(_nft, firewall.publish(attachment))
                self._published[attachment.task_id] = attachment

    async def _withdraw(self, task_id: str) -> None:
        if task_id in self._published:
            async with self._changing:
                await asyncio.to_thread(_nft, firewall.withdraw(self._published[task_id]))
                del self._published[task_id]


def link_name(task_id: str) -> str:
    """The node's end of a task's veth pair: 15 characters are the most that the kernel takes."""
    return LINK_PREFIX + hashlib.sha256(task_id.encode()).hexdigest()[:10]


def _is_pinned(path: Path) -> bool:
    """After a reboot the pin is a plain file."""
    return os.path.ismount(path)


def _delete_link(name: str) -> None:
    with Netlink() as netlink:
        netlink.delete_link(name)


def _write_sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys", name)
    if path.read_text().strip() != value:
        path.write_text(value)


def _nft(text: str) -> None:
    """One transaction: all of it or nothing."""
    process = subprocess.run(
        ["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False
    )
    if process.returncode != 0:
        raise OSError(f"nft refused the rules: {process.stderr.strip()}")
