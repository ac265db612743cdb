"""Packets that belong to a connection by their ports, and to no moment of it: as a long way round makes them."""

import socket
import struct
import sys

from tests.support.places import Place

_REPAIR, _QUEUE, _SEQUENCE = 19, 20, 21  # TCP_REPAIR, TCP_REPAIR_QUEUE and TCP_QUEUE_SEQ of linux/tcp.h
_RECEIVED, _SENT = 1, 2
_ON, _OFF_IN_SILENCE = 1, -1
_ACK = 0x10
_FAR = 1 << 29


def send(place: Place, connected: socket.socket) -> None:
    """One from this end of a connection, far ahead of what it has sent. It acknowledges what has really come, so that
    whoever answers it with a reset ends the connection.
    """
    sequence = (_number(connected, _SENT) + _FAR) % (1 << 32)
    acknowledged = _number(connected, _RECEIVED)
    (source, source_port), (target, target_port) = connected.getsockname(), connected.getpeername()
    segment = struct.pack("!HHIIBBHHH", source_port, target_port, sequence, acknowledged, 5 << 4, _ACK, 1024, 0, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    checksum = _checksum(ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", checksum) + segment[18:]
    with place.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, socket.IPPROTO_TCP, 0)
        raw.sendto(header + ends + segment, (target, 0))


def _number(connected: socket.socket, queue: int) -> int:
    connected.setsockopt(socket.IPPROTO_TCP, _REPAIR, _ON)
    try:
        connected.setsockopt(socket.IPPROTO_TCP, _QUEUE, queue)
        return int.from_bytes(connected.getsockopt(socket.IPPROTO_TCP, _SEQUENCE, 4), sys.byteorder)
    finally:
        connected.setsockopt(socket.IPPROTO_TCP, _REPAIR, _OFF_IN_SILENCE)


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
