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
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from controlplane.core import plan
from protos import families
from protos.families import V4, Family
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
        self._network = ipaddress.ip_network(range_)
        self._bits = self._network.max_prefixlen
        self._prefix = prefix
        self._step = 1 << (self._bits - prefix)
        self._spared = spared
        self.size = max(self._network.num_addresses // self._step - 2 * spared, 0)

    def text(self, number: int) -> str:
        first = self._network.network_address + (number + self._spared) * self._step
        return str(first) if self._prefix == self._bits else f"{first}/{self._prefix}"

    def number(self, text: str) -> int | None:
        """None for what is no part of this range, such as one of a range that was configured before."""
        if not text:
            return None
        network = ipaddress.ip_network(text)
        if network.version != self._network.version:
            return None
        number = (int(network.network_address) - int(self._network.network_address)) // self._step - self._spared
        return number if network.prefixlen == self._prefix and 0 <= number < self.size else None


def service_addresses(range_: str, taken: Collection[str], record: pb.Cluster | None) -> Pool:
    """Virtual addresses. The first and the last of the range are spared: programs take them for something else."""
    family = families.of(range_)
    last = family.get(record.status, "last_service_address") if record is not None else ""
    return Pool(_Parts(range_, family.bits, spared=1), taken, last)


def subnets(range_: str, prefix: int, taken: Collection[str], record: pb.Cluster | None) -> Pool:
    """Ranges of `prefix` for nodes."""
    last = families.of(range_).get(record.status, "last_subnet") if record is not None else ""
    return Pool(_Parts(range_, prefix, spared=0), taken, last)


def remember(
    record: pb.Cluster | None, *, now_ms: int, service_addresses: Iterable[str] = (), subnets: Iterable[str] = ()
) -> Sequence[plan.Change]:
    """Writes down what was given last, when that is new. Goes into the plan before what it was given to."""
    given = [("last_service_address", text) for text in service_addresses if text]
    given += [("last_subnet", text) for text in subnets if text]
    if not given:
        return []
    changed = plan.copy(record) if record is not None else _new(now_ms)
    for name, text in given:
        families.of(text).set(changed.status, name, text)
    return [plan.Write(value=changed, why="addresses were given")]


def wanted(service: pb.Service, family: Family = V4) -> bool:
    """Whether a service is to get a virtual address. One that it has once it keeps until it is deleted."""
    if service.meta.deleted_at or family.get(service.status, "address"):
        return False
    return stands_for_tasks(service.spec, service.spec.template.container.ports)


def stands_for_tasks(spec: pb.ServiceSpec, ports: Collection[pb.Port]) -> bool:
    """Whether a service with these ports is reached through a virtual address."""
    return bool(ports) and spec.endpoint_mode != pb.ENDPOINT_MODE_DNS


def _new(now_ms: int) -> pb.Cluster:
    meta = pb.Meta(id=CLUSTER, name=CLUSTER, generation=1, created_at=now_ms, updated_at=now_ms)
    return pb.Cluster(meta=meta)
