"""ICMP echo (RFC 792, RFC 4443): does an address answer, how soon, and how large may a packet be on its way there?

One rule: no packet may be cut into fragments on its way, so that the answer to a large one means what it says.
"""

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3  # what the kernel has learned is to be found out anew
IPV6_DONTFRAG = 62
_ICMP = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_RECEIVE_BYTES = 1 << 17
_LADDER_STEPS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How one family of addresses does it."""

    family: int
    protocol: int
    request: int
    reply: int
    headers_bytes: int  # of IP and ICMP; no packet is smaller
    options: tuple[tuple[int, int, int], ...]


_FORMS = {
    4: _Form(
        family=socket.AF_INET,
        protocol=socket.IPPROTO_ICMP,
        request=8,
        reply=0,
        headers_bytes=28,
        options=((socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE),),
    ),
    6: _Form(
        family=socket.AF_INET6,
        protocol=socket.IPPROTO_ICMPV6,
        request=128,
        reply=129,
        headers_bytes=48,
        options=(
            (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE),
            (socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1),
        ),
    ),
}


class Echo:
    """Asks from one of this node's addresses. Needs the right to open raw sockets (CAP_NET_RAW)."""

    def __init__(self, source: str) -> None:
        """Raises OSError."""
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._form = form = _FORMS[ip_address(source).version]
        self._socket = socket.socket(form.family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, form.protocol)
        try:
            for option in form.options:
                self._socket.setsockopt(*option)
            self._socket.bind((source, 0))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    async def ask(self, target: str, sizes: Iterable[int], *, timeout_s: float) -> dict[int, float]:
        """Send a packet of each size at once, and wait until all are answered, or for no longer than the time-out.

        Sizes are in bytes, headers included. Answers with the seconds that each took, by size.
        """
        sent: dict[int, tuple[int, float]] = {}
        answers: dict[int, float] = {}
        wanted = ip_address(target)
        for sequence, size in enumerate(sizes):
            try:
                self._socket.sendto(self._packet(sequence, size), (target, 0))
            except OSError:
                continue  # too large for the device, or no way there: as good as no answer
            sent[sequence] = (size, time.monotonic())
        try:
            async with asyncio.timeout(timeout_s):
                while len(answers) < len(sent):
                    data, sender = await asyncio.get_running_loop().sock_recvfrom(self._socket, _RECEIVE_BYTES)
                    sequence = self._sequence_of(data) if ip_address(sender[0]) == wanted else -1
                    if sequence in sent:
                        size, at = sent[sequence]
                        answers.setdefault(size, time.monotonic() - at)
        except TimeoutError:
            return answers
        return answers

    async def largest(self, target: str, *, below: int, timeout_s: float) -> int:
        """The largest packet that passes; 0 when none does. Sizes far apart are tried at once, then those in between.

        Of 1,450 bytes: 28, 73, 118, …, of which 1,243 is the last to pass; then 1,243, 1,245, …; then one by one.
        """
        low, high = self._form.headers_bytes, below
        step = high - low
        while step > 1:
            step = max(1, -(-(high - low) // _LADDER_STEPS))
            answered = await self.ask(target, range(low, high, step), timeout_s=timeout_s)
            if not answered:
                return 0
            low = max(answered)
            high = min(high, low + step)
        return low

    def _packet(self, sequence: int, size: int) -> bytes:
        payload = bytes(size - self._form.headers_bytes)
        whole = _ICMP.pack(self._form.request, 0, 0, self._identifier, sequence) + payload
        if self._form.family == socket.AF_INET6:  # the kernel sums it up, with the addresses
            return whole
        return _ICMP.pack(self._form.request, 0, _checksum(whole), self._identifier, sequence) + payload

    def _sequence_of(self, data: bytes) -> int:
        """Of an answer to this asker; -1 when it is something else. A raw socket is given every ICMP packet, with the
        header of IPv4 and without that of IPv6.
        """
        sequence: int
        start = (data[0] & 0x0F) * 4 if self._form.family == socket.AF_INET else 0
        kind, _, _, identifier, sequence = _ICMP.unpack_from(data, start)
        return sequence if kind == self._form.reply and identifier == self._identifier else -1


def _checksum(data: bytes) -> int:
    """The Internet's (RFC 1071)."""
    words = struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])
    total: int = sum(words) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
