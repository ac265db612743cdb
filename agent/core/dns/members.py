"""One service as names need it: computed from its NetworkService when it is first asked for, and kept as long as that.

One rule: a task that is not ready has its own name all the same, so that those that start together find each other;
in the service's own answers it does not occur.
"""

from collections.abc import Mapping
from functools import cached_property

from agent.core.dns import names
from protos import families
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

_PROTOCOLS = {pb.PROTOCOL_UNSPECIFIED: b"_tcp", pb.PROTOCOL_TCP: b"_tcp", pb.PROTOCOL_UDP: b"_udp"}


class Members:
    """The tasks and ports of a service, by name."""

    def __init__(self, service: dpb.NetworkService, labels: list[bytes], apex: bytes) -> None:
        self.service = service
        self._apex = apex
        self.name = names.from_labels(labels)[:-1] + apex
        self._prefix = labels[0] + b"-"

    @cached_property
    def addresses(self) -> tuple[bytes, ...]:
        """The virtual ones; empty when there is none."""
        return _all(self.service)

    @cached_property
    def ready(self) -> tuple[bytes, ...]:
        """The addresses of tasks that take new connections."""
        return tuple(address for each in self.service.endpoints if each.ready for address in _all(each))

    @cached_property
    def _tasks(self) -> dict[bytes, tuple[bytes, ...]]:
        slots: dict[int, dict[bool, list[bytes]]] = {}
        found: dict[bytes, tuple[bytes, ...]] = {}
        for endpoint in self.service.endpoints:
            addresses = _all(endpoint)
            if not addresses:
                continue
            found[endpoint.task_id.lower().encode()] = addresses
            slots.setdefault(endpoint.slot, {}).setdefault(endpoint.ready, []).extend(addresses)
        for slot, by_ready in slots.items():
            if slot:
                found[self._prefix + str(slot).encode()] = tuple(by_ready.get(True) or by_ready[False])
        return found

    def tasks_of(self, label: bytes) -> tuple[bytes, ...]:
        """The addresses of the task of that id, or in that slot; while a slot changes hands, of both that are in it."""
        return self._tasks.get(label, ())

    @cached_property
    def ports(self) -> dict[tuple[bytes, bytes], int]:
        """Numbers by name and protocol, `_http` and `_tcp`."""
        return {
            (b"_" + port.name.encode(), _PROTOCOLS[port.protocol]): port.target
            for port in self.service.ports
            if port.name and port.protocol in _PROTOCOLS
        }

    @cached_property
    def protocols(self) -> frozenset[bytes]:
        """Those that it has named ports of."""
        return frozenset(protocol for _, protocol in self.ports)

    @cached_property
    def port_targets(self) -> Mapping[bytes, tuple[bytes, ...]]:
        """Where its ports are, names and addresses: itself with a virtual address, else each ready task."""
        if self.addresses:
            return {self.name: self.addresses}
        found: dict[bytes, tuple[bytes, ...]] = {}
        for each in self.service.endpoints:
            if each.ready and (addresses := _all(each)):
                name = self.name_of(each)
                found[name] = (*found.get(name, ()), *addresses)
        return found

    def name_of(self, endpoint: dpb.Endpoint) -> bytes:
        """A task's own name: its slot's, or its id's when it is in none."""
        label = self._prefix + str(endpoint.slot).encode() if endpoint.slot else endpoint.task_id.lower().encode()
        if len(label) > names.MAX_LABEL_BYTES:
            return self.name
        return bytes((len(label),)) + label + self.name


def _all(holder: dpb.NetworkService | dpb.Endpoint) -> tuple[bytes, ...]:
    """Its addresses, of both families."""
    first = (bytes(map(int, holder.address.split("."))),) if holder.address else ()
    return (*first, families.packed(holder.address6)) if holder.address6 else first
