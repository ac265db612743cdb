"""Senders who go on sending: whoever trickles holds a slot, a place on the disk or a turn as long as it pleases.

The rule: only the time counts in which nothing was there to be taken, so that a slow disk here is nobody's fault.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

CLIENT_S = 60.0
"""For people, behind whatever line they have."""
CLIENT_LEAST_BYTES = 256 * 1024


async def steady(chunks: AsyncIterator[bytes], *, within_s: float, least_bytes: int) -> AsyncGenerator[bytes, None]:
    """The chunks, as long as `least_bytes` come in each `within_s` that one waits for them. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    waited_s, come = 0.0, 0
    while True:
        began = loop.time()
        async with asyncio.timeout(max(0.0, within_s - waited_s)):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        waited_s += loop.time() - began
        come += len(chunk)
        if come >= least_bytes:
            waited_s, come = 0.0, 0
        yield chunk
