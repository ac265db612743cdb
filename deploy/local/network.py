"""Links, addresses and routes of a local cluster, by iproute2 in batches; and stepping into a network namespace."""

import contextlib
import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, Final

from deploy.local import errors, plan
from runtime import syscalls

BRIDGE: Final = "lan0"
_TIMEOUT_S: Final = 20


def own_namespace() -> int:
    """A descriptor of the network namespace that this thread is in. It keeps the namespace alive."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """This thread, and what it starts, are in that network namespace for the length of a block."""
    home = own_namespace()
    try:
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)


def make_lan(the_plan: plan.Plan) -> int:
    """The LAN's namespace with its bridge, joined to this one by a veth pair. Returns its descriptor."""
    host = own_namespace()
    lan = _new_namespace()
    length = the_plan.lan.prefix_length
    alone = the_plan.control_planes == 1  # then it is on the bridge itself
    bridge = the_plan.lan.server if alone else the_plan.lan.nobody
    with inside(lan):
        ip(
            "link set lo up",
            f"link add {BRIDGE} address {hardware_address(bridge)} type bridge",
            *([f"addr add {the_plan.lan.server}/{length} dev {BRIDGE}"] if alone else []),
            *([f"addr add {the_plan.lan.server6}/64 dev {BRIDGE} nodad"] if alone and the_plan.has_ipv6 else []),
            f"link set {BRIDGE} up",
            f"link add host0 type veth peer name {the_plan.host_link} netns /proc/{os.getpid()}/fd/{host}",
            f"link set host0 master {BRIDGE} up",
        )
    ip(
        f"addr add {the_plan.lan.host}/{length} dev {the_plan.host_link}",
        *([f"addr add {the_plan.lan.host6}/64 dev {the_plan.host_link} nodad"] if the_plan.has_ipv6 else []),
        f"link set {the_plan.host_link} up",
    )
    os.close(host)
    return lan


def make_places(the_plan: plan.Plan, lan: int) -> dict[str, int]:
    """The network namespace of each control plane: the LAN's own for one that is alone, else one with a link to it."""
    if the_plan.control_planes == 1:
        return dict.fromkeys(the_plan.instance_names, lan)
    return {name: _make_place(the_plan, lan, name) for name in the_plan.instance_names}


def _make_place(the_plan: plan.Plan, lan: int, name: str) -> int:
    place, address = _new_namespace(), the_plan.instance_address(name)
    peer = f"{name} netns /proc/{os.getpid()}/fd/{lan}"
    with inside(place):
        ip(
            "link set lo up",
            f"link add eth0 address {hardware_address(address)} type veth peer name {peer}",
            f"addr add {address}/{the_plan.lan.prefix_length} dev eth0",
            "link set eth0 up",
        )
    with inside(lan):
        ip(f"link set {name} master {BRIDGE} up")
    return place


def _new_namespace() -> int:
    home = own_namespace()
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        new = own_namespace()
        syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
    return new


def plug_in(name: str, address: str, address6: str = "") -> None:
    """Called in the LAN: move to a network namespace of one's own, with `eth0` on the LAN's bridge."""
    lan = own_namespace()
    if exists(name):  # the kernel clears the namespace of a machine that died a little later
        ip(f"link delete {name}")
    syscalls.unshare(syscalls.CLONE_NEWNET)
    peer = f"{name} netns /proc/{os.getpid()}/fd/{lan}"
    ip(
        "link set lo up",
        f"link add eth0 address {hardware_address(address)} type veth peer name {peer}",
        f"addr add {address} dev eth0",
        *([f"addr add {address6} dev eth0 nodad"] if address6 else []),
        "link set eth0 up",
    )
    with inside(lan):
        ip(f"link set {name} master {BRIDGE} up")
    os.close(lan)


def hardware_address(address: str) -> str:
    """10.111.0.11/24 → 02:6c:0a:6f:00:0b, as a machine's card has it: the same after every boot.

    Neighbours go on sending to the address that they know for a while. Left to itself, a link gets another each time,
    and a bridge takes on that of one of its ports, which come and go with the machines.
    """
    packed = ipaddress.ip_interface(address).ip.packed
    return ":".join(f"{byte:02x}" for byte in b"\x02\x6c" + packed)


def exists(link: str) -> bool:
    """Whether this namespace has a link of that name."""
    try:
        socket.if_nametoindex(link)
    except OSError:
        return False
    return True


def ip(*commands: str) -> None:
    """Carry out commands of ip(8), all in one process. LocalError with its words when one fails."""
    result = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if result.returncode != 0:
        reason = " ".join(result.stderr.split())
        raise errors.LocalError(f"cannot set up the network: {reason}", detail="\n".join(commands))


def taken() -> list[str]:
    """The networks that this machine has an address or a route in, as `10.0.0.0/24`."""
    addresses = [
        f"{address['local']}/{address['prefixlen']}"
        for link in _ask("address")
        for address in link.get("addr_info", [])
    ]
    routes = [route["dst"] for route in _ask("route") if route["dst"] != "default"]
    return addresses + routes


def _ask(what: str) -> Sequence[dict[str, Any]]:
    result = subprocess.run(["ip", "-json", what], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    answer: Sequence[dict[str, Any]] = json.loads(result.stdout or "[]")
    return answer
