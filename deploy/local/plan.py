"""What a local cluster is to look like, as a value: names, addresses, folders and command lines. Nothing happens here.

The plan is made once by `up`, written to `cluster.json`, and read by everybody else.
"""

import ipaddress
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controlplane.core.trust import etcd_flags
from deploy.local import errors
from protos import families

MAX_NODES: Final = 200
"""So that the last node's address, .210, stays clear of the host's, .254."""
MAX_CONTROL_PLANES: Final = 5
"""As many as a store has members with a purpose; their addresses are below the first node's, .11."""
API_PORT: Final = 7400
DOOR_PORT: Final = 7401
"""Where machines and people may join, as any cluster."""
METRICS_PORT: Final = 7404
"""Where Prometheus reads of an instance of the control plane, as on any machine."""
NETWORK_MODES: Final = ("auto", "routes", "vxlan")
ADDRESSES: Final = ("ipv4", "dual", "ipv6")
_FIRST_NODE: Final = 11
_CANDIDATES: Final = range(111, 250, 10)
_FIRST_ID: Final = 0x3000_0000
_END_ID: Final = 0x7FFE_0000
"""The user ids of containers in local clusters: between those that adduser(8) gives out in /etc/subuid and those that
systemd keeps for foreign images. Each LAN that there may be has its share, and each node its own of that.
"""
_IDS_AT_ONCE: Final = 65_536
_FOR_PEOPLE: Final = ("--log-format", "console")
"""The logs of a local cluster are files that a person opens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lan:
    """The network that the machines share, and the ranges that tasks and services get their addresses from."""

    network: str
    tasks: str
    services: str

    @property
    def server(self) -> str:
        """The first control plane's address. One that is alone is on the bridge itself, and etcd with it."""
        return self.control_plane(1)

    def control_plane(self, number: int) -> str:
        """The address of the n-th control plane, from 1 on."""
        assert 1 <= number <= MAX_CONTROL_PLANES, f"no control plane has the number {number}"
        return self._address(number)

    @property
    def host(self) -> str:
        """The address of the person's machine."""
        return self._address(254)

    @property
    def nobody(self) -> str:
        """An address that nobody has, for a bridge that needs none."""
        return self._address(253)

    def node(self, number: int) -> str:
        """The address of the n-th node, from 1 on."""
        assert 1 <= number <= MAX_NODES, f"no node has the number {number}"
        return self._address(_FIRST_NODE + number - 1)

    @property
    def network6(self) -> str:
        """The same for IPv6, in a cluster that has it: fd6f:7263:6f:… with the second number of the network above."""
        return f"{self._prefix6(0)}/64"

    @property
    def tasks6(self) -> str:
        """A /48, as `tasks` is a /16."""
        return f"{self._prefix6(1)}/48"

    @property
    def services6(self) -> str:
        """A /112, as `services` is a /16."""
        return f"{self._prefix6(2)}/112"

    @property
    def server6(self) -> str:
        """The first control plane's."""
        return self._address6(1)

    @property
    def host6(self) -> str:
        """The person's machine's."""
        return self._address6(254)

    def node6(self, number: int) -> str:
        """The n-th node's."""
        return self._address6(_FIRST_NODE + number - 1)

    @property
    def second_octet(self) -> int:
        return ipaddress.ip_network(self.network).network_address.packed[1]

    @property
    def prefix_length(self) -> int:
        return ipaddress.ip_network(self.network).prefixlen

    def _address(self, last: int) -> str:
        return str(ipaddress.ip_network(self.network)[last])

    def _address6(self, last: int) -> str:
        return str(ipaddress.ip_network(self.network6)[last])

    def _prefix6(self, further: int) -> str:
        return f"fd6f:7263:{self.second_octet + further:x}::"


def lans(taken: Iterable[str]) -> Iterator[Lan]:
    """Triples of ranges that overlap with none of the networks that the host has an address or a route in.

    10.111.0.0/24 with tasks in 10.112.0.0/16 and services in 10.113.0.0/16, then 10.121 with 10.122 and 10.123, and so
    on.
    """
    used = [ipaddress.ip_network(network, strict=False) for network in taken]
    used = [network for network in used if network.prefixlen > 0]  # a default route is no hit
    for second in _CANDIDATES:
        lan = Lan(network=f"10.{second}.0.0/24", tasks=f"10.{second + 1}.0.0/16", services=f"10.{second + 2}.0.0/16")
        ranges = (lan.network, lan.tasks, lan.services, lan.network6, lan.tasks6, lan.services6)
        wanted = [ipaddress.ip_network(range_) for range_ in ranges]
        if not any(families.overlapping([network, range_]) for network in used for range_ in wanted):
            yield lan


def no_room() -> errors.LocalError:
    """What is told when there is none."""
    return errors.LocalError(
        "no free range of addresses for a cluster: 10.111.0.0/16 … 10.243.0.0/16 are all routed by the host, or of "
        "other clusters",
        hint="take down a cluster that is no longer needed: orchctl cluster down --name NAME",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One cluster."""

    name: str
    folder: str
    """Everything that it writes is below."""
    nodes: int
    lan: Lan
    config: str
    """The file with the contexts of `orchctl`."""
    network_mode: str = "auto"
    """How its nodes reach each other's tasks."""
    addresses: str = "ipv4"
    """Which families its tasks and services have."""
    resources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What each node has a number of, by the node's name: `gpu=0,1`, as its agent is told."""
    control_planes: int = 1
    """Each with a member of etcd beside it. Several have a machine each, which can be switched off."""

    @property
    def has_ipv6(self) -> bool:
        """Whether its machines have addresses of IPv6."""
        return self.addresses != "ipv4"

    @property
    def server(self) -> str:
        return self.servers[0]

    @property
    def servers(self) -> tuple[str, ...]:
        """Where the control planes answer."""
        return tuple(f"{self.instance_address(name)}:{API_PORT}" for name in self.instance_names)

    @property
    def instance_names(self) -> tuple[str, ...]:
        """Of the control planes."""
        return tuple(f"cp{number}" for number in range(1, self.control_planes + 1))

    def instance_address(self, name: str) -> str:
        return self.lan.control_plane(int(name.removeprefix("cp")))

    def etcd_of(self, instance: str) -> str:
        """What the process of the member of etcd beside an instance is called."""
        return "etcd" if self.control_planes == 1 else f"etcd{instance.removeprefix('cp')}"

    @property
    def process_names(self) -> tuple[str, ...]:
        """Everything that runs, but the supervisor and the sweeper."""
        return (*map(self.etcd_of, self.instance_names), *self.instance_names, *self.node_names)

    def member(self, instance: str) -> etcd_flags.Member:
        """The member of etcd beside an instance. One that is alone is reached from the inside only."""
        alone = self.control_planes == 1
        hosts = {name: etcd_flags.LOOPBACK if alone else self.instance_address(name) for name in self.instance_names}
        peers = {name: f"https://{host}:{etcd_flags.PEER_PORT}" for name, host in hosts.items()}
        client = f"https://{hosts[instance]}:{etcd_flags.CLIENT_PORT}"
        return etcd_flags.Member(name=instance, client=client, peer=peers[instance], cluster=peers)

    @property
    def door(self) -> str:
        """Where machines and people join."""
        return f"{self.lan.server}:{DOOR_PORT}"

    @property
    def host_link(self) -> str:
        return host_link(self.name)

    @property
    def cgroup(self) -> str:
        """The parent of all its control groups, below each hierarchy's root."""
        return f"/orch/{self.name}"

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))

    def node_address(self, name: str) -> str:
        return self.lan.node(int(name.removeprefix("n")))

    def node_address6(self, name: str) -> str:
        return self.lan.node6(int(name.removeprefix("n")))

    def ranges(self, ipv4: str, ipv6: str) -> str:
        """As the control plane takes them."""
        return {"ipv4": ipv4, "dual": f"{ipv4},{ipv6}", "ipv6": ipv6}[self.addresses]

    def node_ids(self, name: str) -> str:
        """FIRST:COUNT, which no other node of any cluster on this machine has: their containers see the same kernel.

        Three nodes in 10.121.0.0/24, the second of 14 LANs: 1,462 ranges from 0x35b60000 on, 487 a node; n2's are
        933036032:31916032.
        """
        ranges = (_END_ID - _FIRST_ID) // _IDS_AT_ONCE // len(_CANDIDATES)
        each = ranges // self.nodes
        number = _CANDIDATES.index(self.lan.second_octet) * ranges + (int(name.removeprefix("n")) - 1) * each
        return f"{_FIRST_ID + number * _IDS_AT_ONCE}:{each * _IDS_AT_ONCE}"

    def node_folder(self, name: str) -> Path:
        return Path(self.folder) / name

    def trust(self, name: str) -> str:
        """The folder with the certificates of `cp1` or of a node: `--trust`."""
        return f"{self.folder}/{name}/trust"

    @property
    def admin_trust(self) -> str:
        """The folder with the certificate of whoever started the cluster."""
        return f"{self.folder}/admin"

    def log(self, process: str) -> Path:
        """Where a process's output goes: `etcd`, `cp1`, `n1`, …, `supervisor`."""
        return Path(self.folder) / f"{process}.log"


def resources_of(texts: Iterable[str], *, nodes: int) -> dict[str, list[str]]:
    """`n1:gpu=0,1` → `{"n1": ["gpu=0,1"]}`. The agent checks what comes after the name."""
    found: dict[str, list[str]] = {}
    known = {f"n{number}" for number in range(1, nodes + 1)}
    for text in texts:
        node, _, resource = text.partition(":")
        if node not in known or "=" not in resource:
            hint = f"write it like n1:gpu=0,1 ; nodes are n1 to n{nodes}"
            raise errors.LocalError(f"not a node and what it has: {text!r}", hint=hint)
        found.setdefault(node, []).append(resource)
    return found


def host_link(name: str) -> str:
    """The host's end of the link to the LAN of the cluster of that name. There is one on a machine."""
    return f"orch-{name}"


def etcd_command(plan: Plan, instance: str = "cp1") -> list[str]:
    """The member beside an instance, reachable only inside the LAN. It knows from the instance's folder who it is."""
    data = f"{plan.folder}/{plan.etcd_of(instance)}"
    return [sys.executable, "-m", "controlplane.member", "--trust", plan.trust(instance), "--data", data, "--restarted"]


def control_plane_command(plan: Plan, instance: str = "cp1") -> list[str]:
    """An instance of the control plane. It knows from its folder where etcd is."""
    address = plan.instance_address(instance)
    return [
        *(sys.executable, "-m", "controlplane", "--name", instance),
        *("--listen", f"{address}:{API_PORT}", "--advertise", f"{address}:{API_PORT}"),
        *("--state", f"{plan.folder}/{instance}"),
        *("--trust", plan.trust(instance)),
        *("--door", f"{address}:{DOOR_PORT}", "--metrics", f"{address}:{METRICS_PORT}"),
        *("--cluster-range", plan.ranges(plan.lan.tasks, plan.lan.tasks6)),
        *("--service-range", plan.ranges(plan.lan.services, plan.lan.services6)),
        *("--network-mode", plan.network_mode),
        *_FOR_PEOPLE,
    ]


def machine_command(plan: Plan, node: str) -> list[str]:
    """The machine, which then runs the agent. In a cluster of IPv6 alone, nodes reach each other by it, too."""
    address = plan.node_address6(node) if plan.addresses == "ipv6" else plan.node_address(node)
    folder = str(plan.node_folder(node))
    return [
        *(sys.executable, "-m", "deploy.local.machine", "--name", node),
        *("--address", f"{plan.node_address(node)}/{plan.lan.prefix_length}"),
        *(("--address6", f"{plan.node_address6(node)}/64") if plan.has_ipv6 else ()),
        *("--tasks", f"{folder}/tasks", "--run", f"{folder}/run", "--"),
        *(sys.executable, "-m", "agent", "--name", node, "--server", ",".join(plan.servers)),
        *("--address", address, "--state", folder, "--cgroup-parent", f"{plan.cgroup}/{node}"),
        *("--trust", plan.trust(node)),
        *("--trusted", f"{plan.lan.host}/32"),
        *(("--trusted", f"{plan.lan.host6}/128") if plan.has_ipv6 else ()),
        *("--ids", plan.node_ids(node)),
        *_FOR_PEOPLE,
        *(word for resource in plan.resources.get(node, ()) for word in ("--resource", resource)),
    ]
