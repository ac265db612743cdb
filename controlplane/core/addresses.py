"""Gives out addresses and subnets, so that none is held twice and a freed one rests as long as it can.

The naive design gives the lowest that is free. Then the address of a service that was deleted a moment ago goes to the
next one, while nodes, resolvers and clients still remember whose it was. Going on after the highest that is held does
not help: what is highest changes when its holder goes. So the one that was given last is stored, in the cluster's
record, and the next is looked for after it, around the end of the range. The record is written in the plan, and before,
what it speaks of: a leader that dies in between has skipped an address, and has given none twice.

Example: of 10.201.0.0/29, .1 to .6 can be given. Held are .1, .2 and .3, given last was .3; .2 becomes free. The next
services get .4, .5, .6, and only then .2.

A record that is missing (the cluster is older than it) counts as one of the highest that is held.
"""

import ipaddress
from collections.abc import Collection, Sequence
from typing import Final

from controlplane.core import plan
from protos.orch.v1 import objects_pb2 as pb

CLUSTER: Final = "cluster"
"""The name of the cluster's record."""


class Pool:
    """Equal parts of a range: addresses, or subnets. `last`: the one that was given last, empty for none."""

    def __init__(self, parts: "_Parts", taken: Collection[str], last: str) -> None:
        self._parts = parts
        self._taken = {number for text in taken if (number := parts.number(text)) is not None}
        self._next = self._first_after(last)
        self.given = ""
        """The one that this pool gave last."""

    def take(self) -> str:
        """The next free one; empty when there is none left."""
        size = self._parts.size
        # Of one more than are taken, one is free.
        for step in range(min(len(self._taken) + 1, size)):
            number = (self._next + step) % size
            if number not in self._taken:
                self._taken.add(number)
                self._next = number + 1
                self.given = self._parts.text(number)
                return self.given
        return ""

    def _first_after(self, last: str) -> int:
        number = self._parts.number(last)
        return (number if number is not None else max(self._taken, default=-1)) + 1


class _Parts:
    """The parts of a range that can be given, by number from 0 on; `spared` ones at either end cannot."""

    def __init__(self, range_: str, prefix: int, *, spared: int) -> None:
        self._network = ipaddress.IPv4Network(range_)
        self._prefix = prefix
        self._step = 1 << (32 - prefix)
        self._spared = spared
        self.size = max(self._network.num_addresses // self._step - 2 * spared, 0)

    def text(self, number: int) -> str:
        first = ipaddress.IPv4Address(int(self._network.network_address) + (number + self._spared) * self._step)
        return str(first) if self._prefix == 32 else f"{first}/{self._prefix}"

    def number(self, text: str) -> int | None:
        """None for what is no part of this range, such as one of a range that was configured before."""
        if not text:
            return None
        network = ipaddress.IPv4Network(text)
        number = (int(network.network_address) - int(self._network.network_address)) // self._step - self._spared
        return number if network.prefixlen == self._prefix and 0 <= number < self.size else None


def service_addresses(range_: str, taken: Collection[str], record: pb.Cluster | None) -> Pool:
    """Virtual addresses. The first and the last of the range are spared: programs take them for something else."""
    last = record.status.last_service_address if record is not None else ""
    return Pool(_Parts(range_, 32, spared=1), taken, last)


def subnets(range_: str, prefix: int, taken: Collection[str], record: pb.Cluster | None) -> Pool:
    """Ranges of `prefix` for nodes."""
    return Pool(_Parts(range_, prefix, spared=0), taken, record.status.last_subnet if record is not None else "")


def remember(
    record: pb.Cluster | None, *, now_ms: int, service_address: str = "", subnet: str = ""
) -> Sequence[plan.Change]:
    """Writes down what was given last, when that is new. Goes into the plan before what it was given to."""
    if not (service_address or subnet):
        return []
    changed = plan.copy(record) if record is not None else _new(now_ms)
    if service_address:
        changed.status.last_service_address = service_address
    if subnet:
        changed.status.last_subnet = subnet
    return [plan.Write(value=changed, why="addresses were given")]


def wanted(service: pb.Service) -> bool:
    """Whether a service is to have a virtual address. One that it has once it keeps until it is deleted."""
    if service.meta.deleted_at or service.status.address:
        return False
    return stands_for_tasks(service.spec, service.spec.template.container.ports)


def stands_for_tasks(spec: pb.ServiceSpec, ports: Collection[pb.Port]) -> bool:
    """Whether a service with these ports is reached through a virtual address."""
    return bool(ports) and spec.endpoint_mode != pb.ENDPOINT_MODE_DNS


def _new(now_ms: int) -> pb.Cluster:
    meta = pb.Meta(id=CLUSTER, name=CLUSTER, generation=1, created_at=now_ms, updated_at=now_ms)
    return pb.Cluster(meta=meta)
