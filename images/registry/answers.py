"""What the status of an answer means, and the registry's own words about it.

The rule: those words are a stranger's. They are cut short, on one line, and quoted behind ours.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, NoReturn

from images.registry import errors, retry

if TYPE_CHECKING:
    from collections.abc import Collection

    import aiohttp

_MAX_WORDS_BYTES = 64 << 10
_MAX_WORDS = 200
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\u2027\u202f-\u2065\u2070-\ud7ff]+")


async def check(response: aiohttp.ClientResponse, allowed: Collection[int], *, what: str, host: str) -> None:
    """Raise what another status than the allowed ones means. `what` names what was asked for."""
    if response.status not in allowed:
        await refuse(response, what=what, host=host)


async def refuse(response: aiohttp.ClientResponse, *, what: str, host: str) -> NoReturn:
    words, status = await _words(response), response.status
    said = f" (it says: {words})" if words else ""
    if status in {401, 403}:
        remedy = f"log in with `orchctl image login {host}`, or ask for the right"
        raise errors.Unauthorized(f"{what}: registry {host} does not allow it{said}; {remedy}")
    if status == 404:
        raise errors.NotFound(f"{what}: registry {host} has no such thing{said}; check the name")
    if status in {408, 425, 429} or status >= 500:
        asked_s = retry.parse_retry_after(response.headers.get("Retry-After"), now=dt.datetime.now(dt.UTC))
        message = f"{what}: registry {host} is busy or in trouble (status {status}){said}; try again later"
        raise errors.Unavailable(message, retry_after_s=asked_s)
    raise errors.BadAnswer(f"{what}: registry {host} answers with status {status}{said}; is it a registry?")


async def _words(response: aiohttp.ClientResponse) -> str:
    """`CODE: message` of the protocol's error document, or nothing."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > _MAX_WORDS_BYTES:
            return ""
    return words(bytes(data))


def words(data: bytes) -> str:
    try:
        first = json.loads(data)["errors"][0]
        parts = [first[key] for key in ("code", "message") if isinstance(first.get(key), str)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return " ".join(_UNPRINTABLE.sub(" ", ": ".join(parts)).split())[:_MAX_WORDS]
