"""Makes the kernel forget UDP flows to tasks that take no new ones: the few messages of ctnetlink that this needs.

A TCP connection belongs to the task that accepted it. A UDP flow is the same pair of ports for as long as somebody
sends, so without this a client would go on sending to a task that has gone, and nobody would answer.

    message = nlmsghdr + nfgenmsg + attributes
    CTA_TUPLE_ORIG what the client sent; CTA_TUPLE_REPLY what answers it: its source is the task
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

from agent.adapters.netlink import (
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

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID, _CTA_FILTER = 1, 2, 12, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_PROTO_NUM = 1, 1
_CTA_FILTER_REPLY_FLAGS = 2
_SOURCE_AND_PROTOCOL = 1 << 0 | 1 << 3  # CTA_FILTER_FLAG(CTA_IP_SRC), CTA_FILTER_FLAG(CTA_PROTO_NUM)
_NESTED = 0x8000
_GENERIC = struct.pack("=BBH", socket.AF_INET, 0, 0)
_TIMEOUT_S = 10.0


def forget_udp(addresses: Iterable[str]) -> int:
    """Forget every UDP flow that one of these answers; returns how many there were. Raises OSError."""
    forgotten = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as opened:
        opened.settimeout(_TIMEOUT_S)
        opened.bind((0, 0))
        for address in addresses:
            for flow in list(_flows_of(opened, address)):
                forgotten += _forget(opened, flow)
    return forgotten


def _flows_of(opened: socket.socket, address: str) -> Iterator[dict[int, bytes]]:
    """Kernels before 5.8 do not filter, so what comes is looked at."""
    source = IPv4Address(address).packed
    tuple_ = _nest(_CTA_TUPLE_IP, attribute(_CTA_IP_V4_SRC, source))
    tuple_ += _nest(_CTA_TUPLE_PROTO, attribute(_CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])))
    flags = attribute(_CTA_FILTER_REPLY_FLAGS, struct.pack("=I", _SOURCE_AND_PROTOCOL))
    body = _nest(_CTA_TUPLE_REPLY, tuple_) + _nest(_CTA_FILTER, flags)
    for flow in _ask(opened, _GET, NLM_F_DUMP, body):
        found = dict(parsed(flow))
        reply = dict(parsed(found.get(_CTA_TUPLE_REPLY, b"")))
        ends = dict(parsed(reply.get(_CTA_TUPLE_IP, b"")))
        protocol = dict(parsed(reply.get(_CTA_TUPLE_PROTO, b""))).get(_CTA_PROTO_NUM, b"\0")[0]
        if ends.get(_CTA_IP_V4_SRC) == source and protocol == socket.IPPROTO_UDP:
            yield found


def _forget(opened: socket.socket, flow: dict[int, bytes]) -> int:
    """The id makes sure that it is this flow, and not one that has come in its place."""
    body = _nest(_CTA_TUPLE_ORIG, flow[_CTA_TUPLE_ORIG])
    if _CTA_ID in flow:
        body += attribute(_CTA_ID, flow[_CTA_ID])
    try:
        list(_ask(opened, _DELETE, NLM_F_ACK, body))
    except FileNotFoundError:  # it has ended by itself
        return 0
    return 1


def _ask(opened: socket.socket, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    opened.send(
        HEADER.pack(HEADER.size + len(_GENERIC) + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + _GENERIC + body
    )
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
            yield content[len(_GENERIC) :]


def _nest(kind: int, data: bytes) -> bytes:
    return attribute(kind | _NESTED, data)
