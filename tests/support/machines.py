"""Machines for tests of the network between nodes: network namespaces on cables, without an agent.

Everything ends with its descriptors: nothing has a name on this machine.
"""

import asyncio
import contextlib
import hashlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import IPv4Network

from agent.adapters.echo import Echo
from agent.adapters.netlink import Netlink
from agent.adapters.overlay import Overlay
from deploy.local import network
from protos.orch.v1 import dispatcher_pb2 as dpb
from runtime import syscalls
from tests.support.waiting import until
from tests.support.wire import Wire

CLUSTER = "10.112.0.0/16"
TIMEOUT_S = 20
FORWARDING = ("ip_forward", "ip_forward_use_pmtu")


class Counting(Netlink):
    """Knows how often something was changed."""

    changes = 0

    def _request(self, kind: int, flags: int, body: bytes, *, what: str) -> list[bytes]:
        self.changes += kind % 4 < 2  # RTM_NEW… and RTM_DEL…, not RTM_GET…
        return super()._request(kind, flags, body, what=what)


class Space:
    """A network namespace."""

    def __init__(self) -> None:
        self.fd = _new()
        self.ip("link set lo up")

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.fd}"

    def ip(self, *commands: str) -> None:
        with network.inside(self.fd):
            network.ip(*commands)

    def run(self, *command: str) -> str:
        """What a command says here."""
        with network.inside(self.fd):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        with network.inside(self.fd):
            made = socket.socket(socket.AF_INET, kind)
        made.settimeout(TIMEOUT_S)
        return made

    def echo(self, address: str, *, size: int = 64, timeout_s: float = 1, source: str = "0.0.0.0") -> bool:
        """Whether a packet of that size, which nobody may cut, is answered."""

        async def ask() -> bool:
            with network.inside(self.fd):
                echo = Echo(source)
            try:
                return bool(await echo.ask(address, [size], timeout_s=timeout_s))
            finally:
                echo.close()

        return asyncio.run(ask())

    def counter(self, group: str, name: str) -> int:
        """One of the kernel's counters of this namespace, such as `Ip`, `FragCreates`."""
        lines = [
            line.split() for line in self.run("cat", "/proc/net/snmp").splitlines() if line.startswith(f"{group}:")
        ]
        return int(dict(zip(lines[0], lines[1], strict=True))[name])

    def close(self) -> None:
        os.close(self.fd)


class Lan(Space):
    """A segment: a bridge with cables to machines."""

    def __init__(self) -> None:
        super().__init__()
        self._cables = 0
        self.ip("link add lan0 type bridge", "link set lan0 up")

    def plug(self, space: Space, address: str, *, name: str = "eth0", mtu: int = 1500, lan_mtu: int = 1500) -> None:
        """A cable to a machine, which gets an address with a prefix length. With a `lan_mtu` the far end takes less."""
        self._cables += 1
        mine = f"port{self._cables}"
        peer = f"{mine} netns /proc/{os.getpid()}/fd/{self.fd}"
        space.ip(
            f"link add {name} mtu {mtu} type veth peer name {peer}",
            f"addr add {address} dev {name}",
            f"link set {name} up",
        )
        self.ip(f"link set {mine} mtu {lan_mtu} master lan0 up")

    def settle(self) -> None:
        """Until the kernel has noticed that all cables lead somewhere, which takes it up to a second."""
        until(lambda: self.run("bridge", "link").count("state forwarding") == self._cables, what="all cables carry")

    @contextlib.contextmanager
    def wired(self, space: Space, address: str, wire: Wire) -> Iterator[None]:
        """A cable with faults to a machine."""
        self._cables += 1
        mine = f"port{self._cables}"
        with wire.plugged(space.fd, "eth0", self.fd, mine):
            space.ip(f"addr add {address} dev eth0", "link set eth0 up")
            self.ip(f"link set {mine} master lan0 up")
            self.settle()
            yield


class Machine(Space):
    """A node's machine, number `number`: its own address is given by whoever plugs it in."""

    def __init__(self, number: int, address: str) -> None:
        super().__init__()
        self.number, self.address = number, address
        self.subnet = f"10.112.{number}.0/24"
        self.gateway = f"10.112.{number}.1"
        self.overlay = Overlay()
        self.mtu = 0
        self.task = Space()
        self.task_address = f"10.112.{number}.2"
        for name in FORWARDING:
            self._write(name, "1")
        self.ip("link add orch0 type bridge", f"addr add {self.gateway}/32 dev orch0", "link set orch0 up")

    def peer(self) -> dpb.NetworkPeer:
        return dpb.NetworkPeer(node_id=f"n{self.number}", address=self.address, subnet=self.subnet)

    def network(self, *others: "Machine", mode: dpb.NetworkMode.ValueType, mtu: int = 0) -> dpb.NodeNetwork:
        """What the leader says to it."""
        peers = [other.peer() for other in others if other is not self]
        return dpb.NodeNetwork(cluster_range=CLUSTER, subnet=self.subnet, peers=peers, mode=mode, mtu=mtu)

    def configure(self, *others: "Machine", mode: dpb.NetworkMode.ValueType, mtu: int = 0) -> int:
        """What an agent would do; returns how much had to be changed."""
        with Counting(self.path) as netlink:
            self.mtu = self.overlay.configure(netlink, self.network(*others, mode=mode, mtu=mtu), self.address)
            return netlink.changes

    def start_task(self) -> None:
        """A namespace with an address of the subnet, behind a routed link."""
        end, hardware = "orch-task", "02:00:00:00:00:01"
        peer = f"{end} mtu {self.mtu} address {hardware} netns /proc/{os.getpid()}/fd/{self.fd}"
        self.task.ip(f"link add eth0 mtu {self.mtu} type veth peer name {peer}")
        self.ip(f"link set {end} up", f"route add {self.task_address} dev {end}")
        self.task.ip(
            f"addr add {self.task_address}/32 dev eth0",
            "link set eth0 up",
            f"neigh add {self.gateway} lladdr {hardware} nud permanent dev eth0",
            f"route add default via {self.gateway} dev eth0 onlink",
        )

    def close(self) -> None:
        self.task.close()
        super().close()

    def leftovers(self) -> list[str]:
        """What is there of the way to others."""
        routes = [line for line in self.run("ip", "route").splitlines() if "proto 111" in line]
        devices = [line for line in self.run("ip", "-o", "link").splitlines() if "orch-vx" in line]
        return routes + devices

    def _write(self, name: str, value: str) -> None:
        self.run("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}")


def transfer(source: Space, target: Space, address: str, size_bytes: int) -> None:
    """Send random bytes over TCP, and compare what has arrived."""
    data = os.urandom(size_bytes)
    arrived = hashlib.sha256()
    with target.socket() as listener, source.socket() as client:
        listener.bind((address, 0))
        listener.listen()
        thread = threading.Thread(target=_receive, args=(listener, arrived))
        thread.start()
        try:
            client.connect(listener.getsockname())
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        finally:
            thread.join(2 * TIMEOUT_S)
    assert arrived.digest() == hashlib.sha256(data).digest(), "what arrived is not what was sent"


def _receive(listener: socket.socket, arrived: "hashlib._Hash") -> None:
    connection, _ = listener.accept()
    connection.settimeout(TIMEOUT_S)
    with connection:
        while data := connection.recv(1 << 16):
            arrived.update(data)


def join(lan: Lan, *machines: Machine) -> None:
    """Plug machines into a segment by their own addresses, with 24 bits of prefix."""
    for machine in machines:
        lan.plug(machine, f"{machine.address}/24")
    lan.settle()


def router(near: Lan, far: Lan) -> Space:
    """Between two segments: 192.0.2.254 on the one, 198.51.100.254 on the other."""
    made = Space()
    near.plug(made, "192.0.2.254/24", name="eth0")
    far.plug(made, "198.51.100.254/24", name="eth1")
    made.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    return made


def default_route(machine: Machine) -> None:
    """Through the router of its segment."""
    network_of = IPv4Network(f"{machine.address}/24", strict=False)
    machine.ip(f"route add default via {network_of[254]}")


def _new() -> int:
    home = network.own_namespace()
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        new = network.own_namespace()
        syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
    return new
