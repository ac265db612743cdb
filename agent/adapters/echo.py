"""ICMP echo (RFC 792): does an address answer, how soon, and how large may a packet be on its way there?

One rule: no packet may be cut into fragments on its way, so that the answer to a large one means what it says.
"""

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterable

ECHO_REPLY, ECHO_REQUEST = 0, 8
HEADERS_BYTES = 28
"""IPv4 and ICMP. No packet is smaller."""

IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3  # what the kernel has learned of the way is to be found out anew
_ICMP = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_RECEIVE_BYTES = 1 << 17
_LADDER_STEPS = 32


class Echo:
    """Asks from one of this node's addresses. Needs the right to open raw sockets (CAP_NET_RAW)."""

    def __init__(self, source: str) -> None:
        """Raises OSError."""
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
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
        for sequence, size in enumerate(sizes):
            try:
                self._socket.sendto(self._packet(sequence, size), (target, 0))
            except OSError:
                continue  # too large for the device, or no way there: as good as no answer
            sent[sequence] = (size, time.monotonic())
        try:
            async with asyncio.timeout(timeout_s):
                while len(answers) < len(sent):
                    data = await asyncio.get_running_loop().sock_recv(self._socket, _RECEIVE_BYTES)
                    sequence = self._sequence_of(data, target)
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
        low, high = HEADERS_BYTES, below
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
        payload = bytes(size - HEADERS_BYTES)
        whole = _ICMP.pack(ECHO_REQUEST, 0, 0, self._identifier, sequence) + payload
        return _ICMP.pack(ECHO_REQUEST, 0, _checksum(whole), self._identifier, sequence) + payload

    def _sequence_of(self, data: bytes, target: str) -> int:
        """Of an answer to this asker; -1 when it is something else. A raw socket is given every ICMP packet."""
        sequence: int
        kind, _, _, identifier, sequence = _ICMP.unpack_from(data, (data[0] & 0x0F) * 4)
        is_mine = kind == ECHO_REPLY and identifier == self._identifier and data[12:16] == socket.inet_aton(target)
        return sequence if is_mine else -1


def _checksum(data: bytes) -> int:
    """The Internet's (RFC 1071)."""
    words = struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])
    total: int = sum(words) + (data[-1] << 8 if len(data) % 2 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
