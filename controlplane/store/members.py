"""Which instances of the control plane there are: a key for each, on a lease that ends with it.

The rule: this is for finding each other and nothing else. Who leads is the election's to say.
"""

import asyncio
from collections.abc import Mapping

import structlog

from controlplane.store import api, errors

PREFIX = "/orch-instances/"
TTL_S = 15.0
RENEW_EVERY_S = 5.0
RETRY_S = 1.0

_log = structlog.get_logger()


async def announce(store: api.Store, name: str, address: str) -> None:
    """Keep this instance's key; ends only by being cancelled. The key goes when its lease lapses."""
    while True:
        try:
            lease = await store.grant_lease(TTL_S)
            await store.commit([api.Put(key=PREFIX + name, value=address.encode(), lease=lease)])
            while True:
                await asyncio.sleep(RENEW_EVERY_S)
                await store.keep_alive(lease)
        except (errors.Temporary, errors.LeaseExpired) as error:
            _log.debug("this instance is not announced for now", name=name, why=str(error))
            await asyncio.sleep(RETRY_S)


async def others(store: api.Store, name: str) -> Mapping[str, str]:
    """The addresses of the other instances, by name. Raises `Temporary`."""
    listing = await store.list(PREFIX)
    found = {entry.key.removeprefix(PREFIX): entry.value.decode() for entry in listing.entries}
    return {other: address for other, address in sorted(found.items()) if other != name}
