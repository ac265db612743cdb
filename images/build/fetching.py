"""ADD of an address: fetch a file, with bounds, and compare it with `--checksum` where one is given.

Rules. HTTP and HTTPS only, a few redirects, and no credentials but those that an address itself says: neither a .netrc
nor cookies. The proxies are the environment's. The bytes go to a file as they come. What comes is part of the step's
key, so that a file which changes is added anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from images import errors
from images.build.copying import Fetched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    import aiohttp
    import yarl

T = TypeVar("T")

MAX_BYTES = 4 << 30
_TIMEOUT_S = 600.0
_CONNECT_S = 30.0
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHECK_S = 0.1  # between two looks at whether anybody still wants it
_CHUNK_BYTES = 1 << 18


def is_address(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def file_name(address: str, *, needed: bool) -> str:
    """What the file is called in a folder; `needed` says that one must be in the address."""
    try:
        name = unquote(urlsplit(address).path.rpartition("/")[2])
    except ValueError as error:
        raise errors.InvalidImage(f"{address:.200}: is no address of a server: {error}") from error
    if needed and (name in {"", ".", ".."} or "/" in name or "\0" in name):
        raise errors.InvalidImage(
            f"{address:.200}: holds no file name; give the target one, without a slash at its end"
        )
    return name or "file"


def check_sum(text: str) -> str:
    """The 64 digits of `sha256:…`."""
    kind, _, digits = text.partition(":")
    if kind != "sha256" or len(digits) != 64 or digits.strip("0123456789abcdef"):
        raise errors.InvalidImage(f"--checksum={text!r:.100}: expected sha256: and 64 lower-case hex digits")
    return digits


def fetch(
    address: str, folder: Path, *, checksum: str, needs_name: bool, check: Callable[[], None] = lambda: None
) -> Fetched:
    """Fetch into a new file below `folder`. `NotFound` or `DigestMismatch` names the address.

    `check` is asked all the while: what it raises ends it.
    """
    name = file_name(address, needed=needs_name)
    expected = check_sum(checksum) if checksum else ""
    path = folder / "fetched"
    mtime_s, digest = asyncio.run(_checked(_fetch(address, path), check))
    if expected and digest != expected:
        raise errors.DigestMismatch(f"{address:.200}: the bytes have digest sha256:{digest}, not that of --checksum")
    return Fetched(path=path, name=name, mtime_s=mtime_s)


async def _checked(work: Coroutine[None, None, T], check: Callable[[], None]) -> T:
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=_CHECK_S))[0]:
            check()
        return await task
    finally:
        task.cancel()


async def _fetch(address: str, path: Path) -> tuple[int | None, str]:
    import aiohttp  # takes 0.2 s to import, and few builds need it

    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S, connect=_CONNECT_S)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=timeout, trust_env=False, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            _answer(session, address) as reply,
        ):
            if reply.status != 200:
                raise errors.NotFound(f"{address:.200}: the server answers {reply.status} {reply.reason}")
            digest = await _write(reply.content, path, address)
            return _time(reply.headers.get("Last-Modified", "")), digest
    except (aiohttp.ClientError, TimeoutError) as error:
        raise errors.NotFound(f"{address:.200}: cannot be fetched: {error or 'it takes too long'}") from error


@contextlib.asynccontextmanager
async def _answer(session: aiohttp.ClientSession, address: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Follow redirects, each with the proxy that is meant for it."""
    import yarl

    from images.registry import transport

    target = yarl.URL(address)
    for _ in range(_MAX_REDIRECTS + 1):
        async with session.get(
            target, allow_redirects=False, proxy=transport.proxy_for(target), headers={"Accept-Encoding": "identity"}
        ) as reply:
            if reply.status not in _REDIRECTS:
                yield reply
                return
            target = _next(address, target, reply.headers.get("Location", ""))
    raise errors.NotFound(f"{address:.200}: leads to more than {_MAX_REDIRECTS} addresses, one after the other")


def _next(address: str, here: yarl.URL, location: str) -> yarl.URL:
    try:
        target = here.join(type(here)(location))
    except ValueError as error:
        raise errors.NotFound(f"{address:.200}: leads to {location!r:.200}, which is no address: {error}") from error
    if not location or target.scheme not in {"http", "https"} or not target.host:
        raise errors.NotFound(f"{address:.200}: leads to {location!r:.200}, which is no address of a web server")
    return target


async def _write(content: aiohttp.StreamReader, path: Path, address: str) -> str:
    digest, size = hashlib.sha256(), 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        async for data in content.iter_chunked(_CHUNK_BYTES):
            size += len(data)
            if size > MAX_BYTES:
                raise errors.LimitExceeded(f"{address:.200}: larger than {MAX_BYTES} bytes")
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def _time(text: str) -> int | None:
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError):
        return None
