"""Keeps the way to the other nodes what it should be: makes it, and makes it again when somebody meddles with it.

Two rules: the plan is always worked out from what is there, so that a device that was put down and up, a cable that has
become narrower or a table that was emptied are one and the same case; and a failure is tried again until it is none.
"""

import asyncio
import threading

import structlog

from agent.adapters.netlink import Netlink
from agent.adapters.overlay import Overlay
from agent.adapters.overlaywatch import OverlayWatch
from agent.core import overlay
from agent.errors import Temporary
from protos.orch.v1 import dispatcher_pb2 as dpb

log = structlog.get_logger()

SETTLE_S = 0.2
"""Changes come in crowds: one look for all of them. It also bounds what a quarrel with another program costs."""
RETRY_S = 5.0


class Ways:
    """One for the agent. `run` it; it ends only by being cancelled. `mtu` is the largest packet of tasks."""

    def __init__(self, node_address: str) -> None:
        self.mtu = overlay.DEFAULT_MTU
        self._node_address = node_address
        self._overlay = Overlay()
        self._network: dpb.NodeNetwork | None = None
        self._making = threading.Lock()

    def make(self, netlink: Netlink, network: dpb.NodeNetwork) -> None:
        """Make it so, and keep it so. Blocks. Raises OSError and Temporary."""
        with self._making:
            self._network = network
            self.mtu = self._overlay.configure(netlink, network, self._node_address)

    async def run(self) -> None:
        """Make it so again whenever something has changed."""
        watch = OverlayWatch()
        try:
            while True:
                watch.look_at(await asyncio.to_thread(_device))
                await watch.changed()
                await asyncio.sleep(SETTLE_S)
                await self._mend()
        finally:
            watch.close()

    async def _mend(self) -> None:
        told = ""
        while (problem := await asyncio.to_thread(self._make_again)) is not None:
            if problem != told:
                log.warning("the way to other nodes was not made", error=problem)
                told = problem
            await asyncio.sleep(RETRY_S)

    def _make_again(self) -> str | None:
        """What went wrong; None when nothing did."""
        with self._making:
            if self._network is None:
                return None
            try:
                with Netlink() as netlink:
                    self.mtu = self._overlay.configure(netlink, self._network, self._node_address)
            except (OSError, Temporary) as error:
                return str(error)
            return None


def _device() -> int:
    with Netlink() as netlink:
        link = netlink.link(overlay.DEVICE)
    return link.index if link is not None else 0
