"""Nodes, tasks and a machine outside, as network namespaces on one segment, with the agent's real network in each node.

A socket belongs to the namespace that it was made in, so servers and clients live in this process; a node's event loop
runs in a thread that has moved to the node's namespace, and so do the threads and processes that it starts.
"""

import asyncio
import contextlib
import os
import selectors
import shutil
import socket
import subprocess
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agent.adapters.disk import FileDisk
from agent.adapters.layout import Layout
from agent.adapters.network import RoutedNetwork
from agent.core.network import Attachment, PublishedPort
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from runtime import syscalls
from tests.support import twins
from tests.support.places import LIMIT_S, Place

T = TypeVar("T")
M = TypeVar("M", dpb.NodeNetwork, dpb.NetworkService)

IPV4, DUAL, IPV6 = "ipv4", "dual", "ipv6"
EVERY_KIND = pytest.mark.parametrize("lab", [IPV4, DUAL, IPV6], indirect=True)
ONLY_IPV4 = pytest.mark.parametrize("lab", [IPV4], indirect=True)

CLUSTER_RANGE, SERVICE_RANGE = "10.112.0.0/16", "10.113.0.0/16"
OUTSIDE, TRUSTED = "192.0.2.100", "192.0.2.200"

TCP = pb.Port(target=80, protocol=pb.PROTOCOL_TCP)
UDP = pb.Port(target=80, protocol=pb.PROTOCOL_UDP)
PORTS = (TCP, UDP)
INGRESS = pb.Port(target=80, protocol=pb.PROTOCOL_TCP, published=8080, mode=pb.PUBLISH_MODE_INGRESS)
INGRESS_UDP = pb.Port(target=80, protocol=pb.PROTOCOL_UDP, published=8080, mode=pb.PUBLISH_MODE_INGRESS)
LOCAL = pb.EXTERNAL_TRAFFIC_POLICY_LOCAL


class Servers:
    """Answers on all sockets that it was given, in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._read, self._write = os.pipe()
        self._selector.register(self._read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def add(self, place: Place, name: str, *, tcp: tuple[int, ...] = (), udp: tuple[int, ...] = ()) -> None:
        """Answer with that name."""
        for kind, numbers in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
            for number in numbers:
                listening = place.open(kind)
                listening.bind((place.at("0.0.0.0"), number))
                if kind == socket.SOCK_STREAM:
                    listening.listen(100)
                self._selector.register(listening, selectors.EVENT_READ, name)

    def close(self) -> None:
        os.write(self._write, b"x")
        self._thread.join(LIMIT_S)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        os.close(self._read)
        os.close(self._write)
        self._selector.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == self._read:
                    return
                assert isinstance(key.fileobj, socket.socket), key
                with contextlib.suppress(OSError):  # the client has gone
                    _serve_one(key.fileobj, key.data)


class LabNode(Place):
    """A node with the agent's network in it."""

    def __init__(self, path: Path, folder: Path, *, number: int, kind: str = IPV4) -> None:
        super().__init__(path, six=kind != IPV4)
        self.number, self.kind = number, kind
        self.address = f"192.0.2.{number}"
        self.gateway = f"10.112.{number}.1"
        assert self.at(self.gateway), "its twin is known from here on"
        self.described = self.of_kind(
            dpb.NodeNetwork(cluster_range=CLUSTER_RANGE, subnet=f"10.112.{number}.0/24", service_range=SERVICE_RANGE)
        )
        self.services: dict[str, dpb.NetworkService] = {}
        self.attached: dict[str, Attachment] = {}
        self.folder = folder
        self._loop = asyncio.new_event_loop()
        self._running: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        self.start()

    def of_kind(self, message: M) -> M:
        """A message as the leader of such a cluster would write it."""
        if self.kind == IPV4:
            return message
        return twins.message(message, alone=self.kind == IPV6)

    @property
    def underlay(self) -> str:
        """By which other nodes reach it."""
        return twins.twin(self.address) if self.kind == IPV6 else self.address

    def place(self, name: str) -> Place:
        """Where a task is."""
        return Place(Path(self.network.namespace_of(name)), six=self.six)

    def start(self) -> None:
        """A new agent: it knows nothing."""
        layout = Layout(self.folder)
        FileDisk(layout)
        trusted = [f"{TRUSTED}/32", twins.twin(f"{TRUSTED}/32")]
        self.network = RoutedNetwork(layout, _Namespaces(), node_address=self.underlay, trusted=trusted)
        self._threads = ThreadPoolExecutor()
        self.call(self._begin())

    def stop(self) -> None:
        """The agent dies with its threads; what it has made stays."""
        self.call(self._end())
        self._threads.shutdown()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Have it done by the node's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)

    def configure(self) -> None:
        """Have everything made."""
        attached = tuple(self.attached.values())
        self.call(self.network.configure(self.described, self.services, attached))

    def serve(self, *services: dpb.NetworkService, gone: tuple[str, ...] = ()) -> None:
        """Have these services, too."""
        self.services = {**self.services, **{service.id: self.of_kind(service) for service in services}}
        for service_id in gone:
            del self.services[service_id]
        self.call(self.network.serve(self.services))

    def attach(self, name: str, number: int, service: str, *ports: PublishedPort) -> Place:
        """A task with the address of that number."""
        attachment = self.attachment(name, number, service, *ports)
        self.call(self.network.attach(attachment))
        self.attached[name] = attachment
        return self.place(name)

    def attachment(self, name: str, number: int, service: str, *ports: PublishedPort) -> Attachment:
        """Of a task that has a folder and nothing else."""
        address = f"10.112.{self.number}.{number}"
        Layout(self.folder).task(name).mkdir(parents=True, exist_ok=True)
        return Attachment(
            task_id=name,
            address="" if self.kind == IPV6 else address,
            address6=twins.twin(address) if self.six else "",
            ports=ports,
            service=f"default/{service}",
        )

    def detach(self, name: str) -> None:
        """It has gone."""
        self.call(self.network.detach(self.attached.pop(name)))

    def close(self) -> None:
        """Give everything back."""
        for name in list(self.attached):
            self.detach(name)
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.close()

    def _live(self) -> None:
        fd = os.open(self.path, os.O_RDONLY)
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
        os.close(fd)
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self._threads)
        self._running = loop.create_task(self.network.run())

    async def _end(self) -> None:
        assert self._running is not None, "not started"
        self._running.cancel()
        await asyncio.wait([self._running])


class Lab:
    """Two nodes that know each other, and a machine outside.

    `kind`: DUAL nodes have both families, and reach each other by IPv4; IPV6 ones have nothing else. Both are asked by
    IPv6.
    """

    def __init__(self, folder: Path, kind: str = IPV4) -> None:
        self.folder, self._kind = folder, kind
        self.loopbacks = ("127.0.0.1",) if kind == IPV4 else ()
        """Where a published port is at the node itself: for ::1 the kernel has no way back."""
        self._places: list[Path] = []
        self.servers = Servers()
        lan = Place(self._namespace("lan"))
        lan.run("sh", "-ec", "ip link add lan0 type bridge && ip link set lan0 up")
        self.outside = Place(self._namespace("outside"), six=kind != IPV4)
        self._join(lan, self.outside, OUTSIDE)
        self.nodes = [self._node(lan, number) for number in (1, 2)]
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    node.described.peers.append(
                        dpb.NetworkPeer(
                            node_id="x",
                            address=other.underlay,
                            subnet=other.described.subnet,
                            subnet6=other.described.subnet6,
                        )
                    )
            node.configure()

    def serve(self, *services: dpb.NetworkService) -> None:
        """Tell all nodes."""
        for node in self.nodes:
            node.serve(*services)

    def task(self, node: LabNode, name: str, number: int, service: str = "web", *ports: PublishedPort) -> Place:
        """A task that answers on port 80 of both protocols with its name."""
        place = node.attach(name, number, service, *ports)
        self.servers.add(place, name, tcp=(80, 81), udp=(80,))
        return place

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        self.servers.close()
        for path in self._places:
            subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _namespace(self, name: str) -> Path:
        path = self.folder / name
        new_namespace(path)
        self._places.append(path)
        return path

    def _node(self, lan: Place, number: int) -> LabNode:
        path = self._namespace(f"n{number}")
        self._join(lan, Place(path), f"192.0.2.{number}")
        return LabNode(path, self.folder / f"state{number}", number=number, kind=self._kind)

    def _join(self, lan: Place, place: Place, address: str) -> None:
        name = f"to-{place.path.name}"
        with place.path.open() as peer:
            script = f"ip link add {name} type veth peer name lan netns /proc/self/fd/{peer.fileno()}"
            script += f" && ip link set {name} master lan0 up"
            argv = ["nsenter", f"--net={lan.path}", "sh", "-ec", script]
            subprocess.run(argv, check=True, pass_fds=[peer.fileno()], timeout=LIMIT_S)
        # Otherwise a machine speaks IPv6 to no other for a second or two.
        place.run("sh", "-ec", "echo 0 >/proc/sys/net/ipv6/conf/lan/accept_dad")
        place.run("ip", "link", "set", "lan", "up")
        if self._kind != IPV6:
            place.run("ip", "addr", "add", f"{address}/24", "dev", "lan")
        if self._kind != IPV4:
            place.run("ip", "addr", "add", f"{twins.twin(address)}/64", "dev", "lan", "nodad")


class _Namespaces:
    """Makes network namespaces that belong to the users of this machine."""

    async def make_network_namespace(self, path: Path, *, owner: Path, root_id: int) -> None:
        del owner, root_id
        await asyncio.to_thread(new_namespace, path)

    async def remove_network_namespace(self, path: Path, *, owner: Path) -> None:
        del owner
        await asyncio.to_thread(remove_namespace, path)


def udp(published: int, target: int = 80) -> PublishedPort:
    """A port of the node."""
    return PublishedPort(protocol=pb.PROTOCOL_UDP, published=published, target=target)


def tcp(published: int, target: int = 80) -> PublishedPort:
    """A port of the node."""
    return PublishedPort(protocol=pb.PROTOCOL_TCP, published=published, target=target)


def new_namespace(path: Path) -> None:
    """A network namespace, pinned there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    subprocess.run(["unshare", f"--net={path}", "ip", "link", "set", "lo", "up"], check=True, timeout=LIMIT_S)


def remove_namespace(path: Path) -> None:
    """Let go of it."""
    subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
    path.unlink(missing_ok=True)


def _serve_one(listening: socket.socket, name: str) -> None:
    if listening.type == socket.SOCK_DGRAM:
        _, client = listening.recvfrom(1000)
        listening.sendto(f"{name} {client[0]}".encode(), client)
        return
    connection, client = listening.accept()
    with connection:
        connection.sendall(f"{name} {client[0]}".encode())
