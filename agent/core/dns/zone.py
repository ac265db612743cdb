"""The names of the cluster: its services and tasks → answers.

    web.<namespace>.orch             the service's virtual address, or its ready tasks' addresses when it has none
    tasks.web.<namespace>.orch       its ready tasks' addresses
    web-3.web.<namespace>.orch       the task in slot 3; a task's id instead of `web-3` leads to that one task
    _http._tcp.web.<namespace>.orch  SRV: its port named `http`, at the virtual address or at each ready task
    1.2.0.10.in-addr.arpa            PTR: whose the address is; of IPv6 under ip6.arpa

A name leads to addresses of the families that the cluster has (A, AAAA), and is there without an answer for the other.

The same without `.orch` is a name too, and without `.<namespace>.orch` it is one of the asking task's namespace: some
resolvers ask for a name with a dot in it as it stands, and for nothing else when that is not there.

Two rules: whatever ends in `orch`, and every address of the cluster, is answered here and nowhere else; and names are
no secrets: whoever asks learns of every service, whatever networks they share. The firewall decides who reaches whom.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, NamedTuple, TypeAlias

from agent.core import assignments
from agent.core.dns import names, wire
from agent.core.dns.members import Members
from agent.core.dns.wire import Answer, Record
from protos import families
from protos.families import V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as dpb

DOMAIN: Final = "orch"
SERVICE_TTL_S: Final = 5
"""A virtual address stays as long as its service."""
TASK_TTL_S: Final = 1
"""Shorter than a task that is to stop goes on with what it has (`drain_seconds`, 2 unless told otherwise)."""
NEGATIVE_TTL_S: Final = 1
_NAME_SERVER: Final = b"ns"
_KINDS: Final = {4: wire.A, 16: wire.AAAA}
"""By the length of an address."""
_MINIMAL: Final = b"\x07RFC8482\0"


class _Reverse(NamedTuple):
    """How the names of addresses are written: from the last part on, each with so many bits, as a number to a base."""

    family: Family
    bits: int
    base: int

    @property
    def parts(self) -> int:
        """Of a whole address."""
        return self.family.bits // self.bits


_ARPA: Final = b"arpa"
_REVERSE: Final = {b"in-addr": _Reverse(family=V4, bits=8, base=10), b"ip6": _Reverse(family=V6, bits=4, base=16)}
Shuffle: TypeAlias = Callable[[list[Any]], None]
_Key: TypeAlias = tuple[bytes, bytes]  # namespace, name


class _Found(NamedTuple):
    """What stands at a name."""

    addresses: tuple[bytes, ...] = ()
    ttl_s: int = TASK_TTL_S
    records: tuple[tuple[int, bytes], ...] = ()  # type and data, apart from addresses
    additional: tuple[Record, ...] = ()


_NOTHING: Final = _Found()
"""A name that exists without having anything itself."""


class Zone:
    """What a node knows of the cluster's names."""

    def __init__(self, domain: str = DOMAIN) -> None:
        self._domain = names.labels(names.from_text(domain))
        self._apex = names.from_text(domain)
        self._services: Mapping[str, dpb.NetworkService] = {}  # by id
        self._members: dict[_Key, Members] = {}
        self._namespaces: dict[bytes, int] = {}  # how many services each has
        self._owners: dict[str, tuple[str, bytes]] = {}  # address → id of a service, and the name that it has
        self._ranges: tuple[families.Network, ...] = ()
        self._addresses: tuple[bytes, ...] = ()
        self._kinds: frozenset[int] = frozenset(_KINDS.values())
        self._serial = 1

    def configure(self, *, ranges: Iterable[str], addresses: Iterable[str]) -> None:
        """The ranges that every address of the cluster is from, and the addresses that answers are given at: one of
        each family that the cluster has.
        """
        self._ranges = tuple(ip_network(each) for each in ranges if each)
        self._addresses = tuple(map(families.packed, addresses))
        self._kinds = frozenset(_KINDS[len(address)] for address in self._addresses)

    def update(self, services: Mapping[str, dpb.NetworkService], touched: Collection[str] | None = None) -> int:
        """Take over the services, by id; returns how many changed. `touched`: those that may be others than before, or
        any of them (None). Nobody changes the mapping after this.
        """
        were, are = assignments.different(self._services, services, touched)
        if not were and not are:
            return 0
        for service in were:
            self._remove(service)
        for service in are:
            self._add(service)
        self._services = services
        self._serial += 1
        return len({service.id for service in (*were, *are)})

    def _remove(self, service: dpb.NetworkService) -> None:
        key = _key(service)
        if key not in self._members or self._members[key].service.id != service.id:
            return
        del self._members[key]
        self._namespaces[key[0]] -= 1
        if not self._namespaces[key[0]]:
            del self._namespaces[key[0]]
        for address in (each for holder in (service, *service.endpoints) for each in families.every(holder)):
            if self._owners.get(address, ("", b""))[0] == service.id:
                del self._owners[address]

    def _add(self, service: dpb.NetworkService) -> None:
        key = _key(service)
        if key in self._members:  # one of the same name is about to go
            self._remove(self._members[key].service)
        members = Members(service, names.labels(names.from_text(f"{service.name}.{service.namespace}")), self._apex)
        self._members[key] = members
        self._namespaces[key[0]] = self._namespaces.get(key[0], 0) + 1
        for endpoint in service.endpoints:
            for address in families.every(endpoint):
                self._owners[address] = service.id, members.name_of(endpoint)
        for address in families.every(service):
            self._owners[address] = service.id, members.name

    def is_internal(self, namespace: str, service: str) -> bool:
        """Whether the tasks of a service reach nothing outside the cluster."""
        members = self._members.get((namespace.encode(), service.encode()))
        return members is not None and members.service.internal

    # Questions

    def lookup(self, name: bytes, kind: int, namespace: str | None, shuffle: Shuffle) -> Answer | None:
        """The answer to whoever asks from that namespace; None when the name is none of ours."""
        labels = names.labels(name.lower())
        size = len(self._domain)
        if labels[-size:] == self._domain:
            found = self._below(labels[:-size])
        elif labels[-1:] == [_ARPA] and labels[-2:-1] and labels[-2] in _REVERSE:
            return self._reverse(name, labels, kind)
        else:
            found = self._short(labels, namespace)
            if found is None:
                return None
        return self._answer(name, kind, found, shuffle)

    def _below(self, labels: list[bytes]) -> _Found | None:
        if len(labels) >= 2:
            members = self._members.get((labels[-1], labels[-2]))
            return _of_service(members, labels[:-2]) if members is not None else None
        if not labels:
            return _Found(records=((wire.SOA, self._soa()), (wire.NS, self._server_name())), ttl_s=SERVICE_TTL_S)
        if labels[0] == _NAME_SERVER and self._addresses:
            return _Found(addresses=self._addresses, ttl_s=SERVICE_TTL_S)
        return _NOTHING if labels[0] in self._namespaces else None

    def _short(self, labels: list[bytes], namespace: str | None) -> _Found | None:
        if namespace is not None and labels:
            members = self._members.get((namespace.encode(), labels[-1]))
            found = _of_service(members, labels[:-1]) if members is not None else None
            if found is not None:
                return found
        return self._below(labels) if len(labels) >= 2 else None

    def _answer(self, name: bytes, kind: int, found: _Found | None, shuffle: Shuffle) -> Answer:
        if found is None:
            return self._negative(wire.NXDOMAIN, self._apex)
        if kind in self._kinds and (addresses := [each for each in found.addresses if _KINDS[len(each)] == kind]):
            if len(addresses) > 1:
                shuffle(addresses)
            return Answer(
                answers=tuple(Record(name, kind, found.ttl_s, address) for address in addresses), authoritative=True
            )
        if kind == wire.ANY:  # RFC 8482: as little as there can be
            return Answer(answers=(Record(name, wire.HINFO, NEGATIVE_TTL_S, _MINIMAL),), authoritative=True)
        records = [Record(name, each, found.ttl_s, data) for each, data in found.records if each == kind]
        if not records:
            return self._negative(wire.NOERROR, self._apex)
        shuffle(records)
        additional = tuple(record for record in found.additional if record.kind in self._kinds)
        return Answer(answers=tuple(records), additional=additional, authoritative=True)

    def _reverse(self, name: bytes, labels: list[bytes], kind: int) -> Answer | None:
        """`labels` without their two last ones are the parts of an address from the last one on."""
        form, below = _REVERSE[labels[-2]], labels[:-2]
        parts = [_part(label, form) for label in below[-form.parts :]][::-1]
        asked = _range_of(parts, form)
        if asked is None:
            return None
        inside = next((each for each in self._ranges if _is_in(asked, each)), None)
        zone = _reverse_zone(labels, inside, form)
        if len(parts) < form.parts:
            return self._negative(wire.NOERROR, zone) if inside is not None else None
        address = str(asked.network_address)
        owner = self._owners[address][1] if address in self._owners else self._own_name(address)
        if inside is None and not owner:
            return None
        if not owner or len(below) > form.parts:
            return self._negative(wire.NXDOMAIN, zone)
        if kind not in {wire.PTR, wire.ANY}:
            return self._negative(wire.NOERROR, zone)
        return Answer(answers=(Record(name, wire.PTR, TASK_TTL_S, owner),), authoritative=True)

    def _own_name(self, address: str) -> bytes:
        return self._server_name() if families.packed(address) in self._addresses else b""

    def _negative(self, code: int, zone: bytes) -> Answer:
        return Answer(code, authority=(Record(zone, wire.SOA, NEGATIVE_TTL_S, self._soa()),), authoritative=True)

    def _soa(self) -> bytes:
        contact = names.from_labels([b"hostmaster", *self._domain])
        return wire.soa(
            primary=self._server_name(), contact=contact, serial=self._serial, negative_ttl_s=NEGATIVE_TTL_S
        )

    def _server_name(self) -> bytes:
        return names.from_labels([_NAME_SERVER, *self._domain])


def _of_service(members: Members, prefix: list[bytes]) -> _Found | None:
    """What stands at a name of a service, or at one below it. None: there is no such name."""
    if not prefix:
        if members.addresses:
            return _Found(addresses=members.addresses, ttl_s=SERVICE_TTL_S)
        return _Found(addresses=members.ready)
    if prefix == [b"tasks"]:
        return _Found(addresses=members.ready)
    if prefix[-1] in members.protocols:
        return _of_ports(members, prefix)
    if len(prefix) == 1 and (tasks := members.tasks_of(prefix[0])):
        return _Found(addresses=tasks)
    return None


def _of_ports(members: Members, prefix: list[bytes]) -> _Found | None:
    if len(prefix) == 1:
        return _NOTHING
    port = members.ports.get((prefix[0], prefix[1])) if len(prefix) == 2 else None
    if port is None:
        return None
    targets = members.port_targets
    many = not members.addresses
    ttl_s = TASK_TTL_S if many else SERVICE_TTL_S
    return _Found(
        records=tuple((wire.SRV, wire.srv(priority=0, weight=int(many), port=port, target=name)) for name in targets),
        additional=tuple(
            Record(name, _KINDS[len(address)], ttl_s, address)
            for name, addresses in targets.items()
            for address in addresses
        ),
        ttl_s=ttl_s,
    )


def _key(service: dpb.NetworkService) -> _Key:
    return service.namespace.encode(), service.name.encode()


def _part(label: bytes, form: _Reverse) -> int | None:
    """A part of an address, written as it has to be; None for anything else."""
    try:
        number = int(label, form.base)
    except ValueError:
        return None
    as_written = (b"%d" if form.base == 10 else b"%x") % number
    return number if number < 1 << form.bits and as_written == label else None


def _range_of(parts: list[int | None], form: _Reverse) -> families.Network | None:
    """The range whose addresses begin so."""
    number = 0
    for part in parts:
        if part is None:
            return None
        number = number << form.bits | part
    if not parts:
        return None
    length = len(parts) * form.bits
    start = number << (form.family.bits - length)
    return IPv4Network((start, length)) if form.family is V4 else IPv6Network((start, length))


def _is_in(one: families.Network, other: families.Network) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.subnet_of(other)
    return isinstance(one, IPv6Network) and isinstance(other, IPv6Network) and one.subnet_of(other)


def _reverse_zone(labels: list[bytes], inside: families.Network | None, form: _Reverse) -> bytes:
    """The name that a range of ours begins at, as far as a name can say it: whole parts of an address.

    3.2.1.10.in-addr.arpa in 10.0.0.0/8 → 10.in-addr.arpa, in 10.0.0.0/12 → 1.10.in-addr.arpa
    """
    count = -(-inside.prefixlen // form.bits) if inside is not None else form.parts
    below = labels[:-2]
    return names.from_labels([*below[len(below) - min(count, len(below)) :], *labels[-2:]])
