"""Keeps the node's certificate young.

    told of other roots, or the moment has come ──► renew ──► kept on disk ──► confirmed, with the new certificate

Three rules. What is open stays open: only the next connection shows the new certificate. As long as renewing fails it
is tried again, for the fifth of its life that is left at least. And that the certificate has come is said until it is
answered, by the next agent if this one ends: an exchange of the root waits for that, so that an answer may be lost.
"""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Callable

import structlog

from agent.errors import Temporary
from agent.rpc import Server
from protos.orch.v1 import trust_pb2 as pb
from trust import errands
from trust.core import lifetime
from trust.core.identity import Malformed
from trust.folder import Folder, Material, NotTrusted, material

LOOK_AGAIN_S = 3600.0
RETRY_S = lifetime.RETRY_MS / 1000
SPREAD_S = 5.0
"""When the roots change, all nodes hear it at once; each waits a part of this."""

log = structlog.get_logger()


class Renewal:
    """`run` it beside the session, which tells it what the cluster believes."""

    def __init__(self, server: Server, folder: Folder, now_ms: Callable[[], int], chance: random.Random) -> None:
        self._server = server
        self._folder = folder
        self._now_ms = now_ms
        self._chance = chance
        self._roots_digest = ""
        self._woken = asyncio.Event()
        self._confirmed: Material | None = None

    def told_roots(self, digest: str) -> None:
        """The cluster believes these roots now."""
        self._roots_digest = digest
        self._woken.set()

    async def run(self) -> None:
        """Renews, again and again. It ends only by being cancelled."""
        while True:
            renews = await self._until_due()
            try:
                if renews:
                    await renew(self._server, self._folder)
                await self._confirm()
            except (Temporary, Malformed, NotTrusted, errands.NotMade) as error:
                log.warning("the certificate is not renewed yet", why=str(error), confirming=not renews)
                await self._until_next_try()

    async def _until_next_try(self) -> None:
        """A while, or until a session begins, perhaps with somebody else."""
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._woken.wait()

    async def _confirm(self) -> None:
        """Raises Temporary."""
        own = self._server.own
        await self._server.confirm()
        self._confirmed = own

    async def _until_due(self) -> bool:
        """Waits for the moment in the certificate's life, or for the news of other roots, and then a little.

        False: only what is there is to be confirmed.
        """
        own = self._server.own
        assert own is not None, "there is something to renew"
        moment = lifetime.renewal_moment(own.facts.not_before_ms, own.facts.not_after_ms, self._chance.random())
        while self._now_ms() < moment:
            if self._roots_digest not in {"", hashlib.sha256(own.roots).hexdigest()}:
                await asyncio.sleep(SPREAD_S * self._chance.random())
                return True
            if self._roots_digest and own is not self._confirmed:
                return False
            # A timer cannot run for months, and a machine's clock may be set.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_AGAIN_S, (moment - self._now_ms()) / 1000)):
                    await self._woken.wait()
            self._woken.clear()
        return True


async def renew(server: Server, folder: Folder) -> None:
    """A new key, and a certificate for it. Raises Temporary, Malformed, NotTrusted or NotMade."""
    key, asked = await errands.request_async()
    made = await server.renew(pb.RenewRequest(certificate_request=asked))
    own = material(key.encode(), made.certificate.encode(), made.roots.encode())
    folder.save(own)
    server.own = own
    log.info("the certificate is renewed", until_ms=own.facts.not_after_ms)
