"""Whose a counter of traffic is: the services' side of what nodes count by address and by published port."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from protos import families
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb


class Name(NamedTuple):
    """Of a service."""

    namespace: str
    service: str


_PROTOCOLS = {pb.PROTOCOL_UNSPECIFIED: "tcp", pb.PROTOCOL_TCP: "tcp", pb.PROTOCOL_UDP: "udp"}


def owners(services: Iterable[wire.NetworkService]) -> Mapping[str, Name]:
    """Whose each key of a `TrafficCounter` is."""
    found: dict[str, Name] = {}
    for service in services:
        name = Name(service.namespace, service.name)
        found.update(dict.fromkeys(families.every(service), name))
        for port in service.ports:
            if port.published:
                found[f"{_PROTOCOLS[port.protocol]} {port.published}"] = name
        for endpoint in service.endpoints:
            found.update(dict.fromkeys(families.every(endpoint), name))
    return found
