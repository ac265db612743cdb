"""Keeps the node's certificate young.

Two rules. What is open stays open: only the next connection shows the new certificate. And as long as renewing fails
it is tried again, for the fifth of its life that is left at least.
"""

import asyncio
import random
from collections.abc import Callable

import structlog

from agent.errors import Temporary
from agent.rpc import Server
from protos.orch.v1 import trust_pb2 as pb
from trust import errands
from trust.core import lifetime
from trust.core.identity import Malformed
from trust.folder import Folder, NotTrusted, material

LOOK_AGAIN_S = 3600.0
RETRY_S = lifetime.RETRY_MS / 1000

log = structlog.get_logger()


async def run(server: Server, folder: Folder, now_ms: Callable[[], int], chance: random.Random) -> None:
    """Renews, again and again. It ends only by being cancelled."""
    while True:
        own = server.own
        assert own is not None, "there is something to renew"
        moment = lifetime.renewal_moment(own.facts.not_before_ms, own.facts.not_after_ms, chance.random())
        # A timer cannot run for months, and a machine's clock may be set.
        while now_ms() < moment:  # noqa: ASYNC110 - nothing announces a moment
            await asyncio.sleep(min(LOOK_AGAIN_S, (moment - now_ms()) / 1000))
        try:
            await renew(server, folder)
        except (Temporary, Malformed, NotTrusted, errands.NotMade) as error:
            log.warning("the certificate is not renewed yet", why=str(error), until_ms=own.facts.not_after_ms)
            await asyncio.sleep(RETRY_S)


async def renew(server: Server, folder: Folder) -> None:
    """A new key, and a certificate for it. Raises Temporary, Malformed, NotTrusted or NotMade."""
    key, asked = await errands.request_async()
    made = await server.renew(pb.RenewRequest(certificate_request=asked))
    own = material(key.encode(), made.certificate.encode(), made.roots.encode())
    folder.save(own)
    server.own = own
    log.info("the certificate is renewed", until_ms=own.facts.not_after_ms)
