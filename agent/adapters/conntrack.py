"""Makes the kernel forget UDP flows that new rules would lead elsewhere: the few messages of ctnetlink that this needs.

A TCP connection belongs to the task that accepted it. A UDP flow is the same pair of ports for as long as somebody
sends, so without this a client would go on sending to a task that has gone, and nobody would answer; or to the node
itself, because it began before the port was published.

    message = nlmsghdr + nfgenmsg + attributes
    CTA_TUPLE_ORIG what the client sent; CTA_TUPLE_REPLY what answers it: its source is the task
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from agent.adapters.netlink import (
    FAMILIES,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
)
from agent.adapters.netlink import attributes as parsed
from agent.adapters.netlink_format import family_of

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID, _CTA_FILTER = 1, 2, 12, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V6_SRC, _CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3, 1, 3
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 2
_SOURCE, _PROTOCOL, _DESTINATION_PORT = 1 << 0, 1 << 3, 1 << 5  # CTA_FILTER_FLAG in the kernel's nf_internals.h
_NESTED = 0x8000
_GENERIC = struct.Struct("=BBH")  # family, version, resource
_SOURCES: dict[int, int] = {socket.AF_INET: _CTA_IP_V4_SRC, socket.AF_INET6: _CTA_IP_V6_SRC}
_UDP = bytes([socket.IPPROTO_UDP])
_TIMEOUT_S = 10.0


def forget_udp(addresses: Iterable[str], ports: Iterable[int]) -> int:
    """Forget every UDP flow that one of these addresses answers or that was sent to one of these ports; returns how
    many there were. Raises OSError.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as opened:
        opened.settimeout(_TIMEOUT_S)
        opened.bind((0, 0))
        flows = [flow for address in addresses for flow in _answered_by(opened, ip_address(address).packed)]
        flows += [
            flow for port in ports for kind in FAMILIES for flow in _sent_to(opened, struct.pack("!H", port), kind)
        ]
        return sum(_forget(opened, flow) for flow in flows)


def _answered_by(opened: socket.socket, source: bytes) -> Iterator[dict[int, bytes]]:
    family, kind = family_of(source), _SOURCES[family_of(source)]
    wanted = _nest(_CTA_TUPLE_IP, attribute(kind, source))
    wanted += _nest(_CTA_TUPLE_PROTO, attribute(_CTA_PROTO_NUM, _UDP))
    # By addresses of IPv6 the kernel passes on those that are not the one (seen with 6.18), so it is not asked to.
    by_source = _SOURCE if family == socket.AF_INET else 0
    flags = attribute(_CTA_FILTER_REPLY_FLAGS, struct.pack("=I", by_source | _PROTOCOL))
    for flow in _ask(opened, _GET, NLM_F_DUMP, _nest(_CTA_TUPLE_REPLY, wanted) + _nest(_CTA_FILTER, flags), family):
        found = dict(parsed(flow))
        ends, protocol = _ends(found.get(_CTA_TUPLE_REPLY, b""))
        if ends.get(kind) == source and protocol.get(_CTA_PROTO_NUM) == _UDP:  # before 5.8 nothing is filtered
            yield found


def _sent_to(opened: socket.socket, port: bytes, family: int) -> Iterator[dict[int, bytes]]:
    wanted = _nest(_CTA_TUPLE_PROTO, attribute(_CTA_PROTO_NUM, _UDP) + attribute(_CTA_PROTO_DST_PORT, port))
    flags = attribute(_CTA_FILTER_ORIG_FLAGS, struct.pack("=I", _PROTOCOL | _DESTINATION_PORT))
    for flow in _ask(opened, _GET, NLM_F_DUMP, _nest(_CTA_TUPLE_ORIG, wanted) + _nest(_CTA_FILTER, flags), family):
        found = dict(parsed(flow))
        _, protocol = _ends(found.get(_CTA_TUPLE_ORIG, b""))
        if protocol.get(_CTA_PROTO_DST_PORT) == port and protocol.get(_CTA_PROTO_NUM) == _UDP:
            yield found


def _ends(tuple_: bytes) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """The addresses and the ports of a tuple."""
    halves = dict(parsed(tuple_))
    ports = {kind: data[:2] for kind, data in parsed(halves.get(_CTA_TUPLE_PROTO, b""))}
    return dict(parsed(halves.get(_CTA_TUPLE_IP, b""))), ports


def _forget(opened: socket.socket, flow: dict[int, bytes]) -> int:
    """The id makes sure that it is this flow, and not one that has come in its place."""
    body = _nest(_CTA_TUPLE_ORIG, flow[_CTA_TUPLE_ORIG])
    if _CTA_ID in flow:
        body += attribute(_CTA_ID, flow[_CTA_ID])
    try:
        list(_ask(opened, _DELETE, NLM_F_ACK, body, _family_of(flow)))
    except FileNotFoundError:  # it has ended by itself
        return 0
    return 1


def _family_of(flow: dict[int, bytes]) -> int:
    ends, _ = _ends(flow[_CTA_TUPLE_ORIG])
    return socket.AF_INET6 if _CTA_IP_V6_SRC in ends else socket.AF_INET


def _ask(opened: socket.socket, kind: int, flags: int, body: bytes, family: int) -> Iterator[bytes]:
    generic = _GENERIC.pack(family, 0, 0)
    opened.send(HEADER.pack(HEADER.size + len(generic) + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + generic + body)
    while True:
        data = opened.recv(1 << 17)
        offset = 0
        while offset + HEADER.size <= len(data):
            size, answer, _, _, _ = HEADER.unpack_from(data, offset)
            content = data[offset + HEADER.size : offset + size]
            offset += size + -size % 4
            if answer == NLMSG_DONE:
                return
            if answer == NLMSG_ERROR:
                code = -struct.unpack_from("=i", content)[0]
                if code:
                    raise OSError(code, "the kernel's table of connections")
                return
            yield content[_GENERIC.size :]


def _nest(kind: int, data: bytes) -> bytes:
    return attribute(kind | _NESTED, data)
