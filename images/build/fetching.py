"""ADD of an address: fetch a file, with bounds, and compare it with `--checksum` where one is given.

Rules. HTTP and HTTPS only, a few redirects, no credentials. The bytes go to a file as they come. What comes is part of
the step's key, so that a file which changes is added anew.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from images import errors
from images.build.copying import Fetched

if TYPE_CHECKING:
    import aiohttp

MAX_BYTES = 4 << 30
_TIMEOUT_S = 600.0
_CONNECT_S = 30.0
_MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 18


def is_address(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def file_name(address: str, *, needed: bool) -> str:
    """What the file is called in a folder; `needed` says that one must be in the address."""
    name = unquote(urlsplit(address).path.rpartition("/")[2])
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


def fetch(address: str, folder: Path, *, checksum: str, needs_name: bool) -> Fetched:
    """Fetch into a new file below `folder`. `NotFound` or `DigestMismatch` names the address."""
    name = file_name(address, needed=needs_name)
    expected = check_sum(checksum) if checksum else ""
    path = folder / "fetched"
    mtime_s, digest = asyncio.run(_fetch(address, path))
    if expected and digest != expected:
        raise errors.DigestMismatch(f"{address:.200}: the bytes have digest sha256:{digest}, not that of --checksum")
    return Fetched(path=path, name=name, mtime_s=mtime_s)


async def _fetch(address: str, path: Path) -> tuple[int | None, str]:
    import aiohttp  # takes 0.2 s to import, and few builds need it

    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S, connect=_CONNECT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False) as session,
            session.get(address, max_redirects=_MAX_REDIRECTS, headers={"Accept-Encoding": "identity"}) as reply,
        ):
            if reply.status != 200:
                raise errors.NotFound(f"{address:.200}: the server answers {reply.status} {reply.reason}")
            digest = await _write(reply.content, path, address)
            return _time(reply.headers.get("Last-Modified", "")), digest
    except (aiohttp.ClientError, TimeoutError) as error:
        raise errors.NotFound(f"{address:.200}: cannot be fetched: {error or 'it takes too long'}") from error


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
