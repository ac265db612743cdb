"""A cable between two network namespaces that delays, loses and cuts, for kernels with and without netem.

Both ends are TAP devices; a thread carries every frame from one to the other. No hardware's help reaches through it:
packets are as long as they would be on a real cable, and carry their real checksums.
"""

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time
from collections.abc import Iterator

from deploy.local import network

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 70_000


class Wire:
    """Carries frames while the block of `plugged` lasts. The faults may be changed at any time."""

    def __init__(self, *, delay_s: float = 0.0, loss: float = 0.0, seed: int = 1) -> None:
        self.delay_s = delay_s
        self.loss = loss
        self.is_cut = False
        self.largest_bytes = FRAME_BYTES
        self.carried = self.lost = 0
        self._chance = random.Random(seed)
        self._due: list[tuple[float, int, int, bytes]] = []
        self._stop = threading.Event()

    @contextlib.contextmanager
    def plugged(self, one: int, one_name: str, other: int, other_name: str) -> Iterator[None]:
        """With a device in each of two namespaces (descriptors), which are down at first."""
        ends = [_tap(one, one_name), _tap(other, other_name)]
        thread = threading.Thread(target=self._carry, args=(ends,), name="wire")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(10)
            for end in ends:
                os.close(end)

    def _carry(self, ends: list[int]) -> None:
        opposite = {ends[0]: ends[1], ends[1]: ends[0]}
        while not self._stop.is_set():
            wait_s = min(0.05, max(0.0, self._due[0][0] - time.monotonic())) if self._due else 0.05
            for end in select.select(ends, [], [], wait_s)[0]:
                with contextlib.suppress(BlockingIOError):  # the device went down in the meantime
                    self._take(os.read(end, FRAME_BYTES), opposite[end])
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, target, frame = heapq.heappop(self._due)
                with contextlib.suppress(OSError):  # that end is down: the frame is lost, as on a cable
                    os.write(target, frame)

    def _take(self, frame: bytes, target: int) -> None:
        if self.is_cut or len(frame) > self.largest_bytes or self._chance.random() < self.loss:
            self.lost += 1
            return
        self.carried += 1
        heapq.heappush(self._due, (time.monotonic() + self.delay_s, self.carried, target, frame))


def _tap(namespace: int, name: str) -> int:
    with network.inside(namespace):
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return end
