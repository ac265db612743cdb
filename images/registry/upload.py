"""Blobs on their way to a registry (OCI distribution specification 1.1, "Pushing blobs").

In this order: is it there (HEAD); does another repository of the same registry have it (a mount); otherwise one PUT for
a small blob, and PATCHes for a large one. After a cut the registry is asked how much it has, and the rest is sent. The
rule: what the registry says about the place of an upload is believed for that upload and for nothing else.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from images import errors as image_errors
from images.registry import answers, auth, errors, retry, threads, transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    import aiohttp

    from images import progress
    from images.manifest import Descriptor
    from images.registry.registries import Registries
    from images.registry.repository import Repository
    from images.store import ImageStore

# One PUT up to here; a PATCH carries so much of what is larger, unless the registry wants more at once.
MONOLITHIC_BYTES = 4 << 20
CHUNK_BYTES = 64 << 20
_MAX_CHUNK_BYTES = 1 << 30
_PIECE_BYTES = 256 << 10
_ACTIONS = ("pull", "push")
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")


async def send(
    store: ImageStore,
    entry: Descriptor,
    target: Repository,
    *,
    registries: Registries,
    watcher: progress.Progress,
    mounts: Iterable[str] = (),
) -> None:
    """Have the blob in the repository. `mounts` are repositories of the same registry that may have it."""
    async with registries.transfers.uploads:
        if await retry.persist(registries.config.retry, lambda: target.has_blob(entry.digest)):
            watcher.step(entry.digest, "exists", entry.size_bytes, entry.size_bytes)
            return
        async with threads.entered(store.open(entry.digest)) as file:
            if os.fstat(file.fileno()).st_size != entry.size_bytes:
                await threads.run(store.check_blob, entry.digest)
                raise image_errors.InvalidImage(f"blob {entry.digest}: its manifest says another size; pull it again")
            work = _Upload(entry, file, target, registries, watcher, functools.partial(store.check_blob, entry.digest))
            for source in mounts:
                if await work.mount(source):
                    watcher.step(entry.digest, "mounted", entry.size_bytes, entry.size_bytes)
                    return
            await work.run()
        watcher.step(entry.digest, "done", entry.size_bytes, entry.size_bytes)


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where an upload goes on; `sure` while nothing has happened since the registry last told how much it has."""

    url: str
    offset: int = 0
    sure: bool = True
    least_bytes: int = 0


class _Upload:
    """One blob to one repository."""

    def __init__(
        self,
        entry: Descriptor,
        file: BinaryIO,
        target: Repository,
        registries: Registries,
        watcher: progress.Progress,
        check: Callable[[], None],
    ) -> None:
        """`check` reads the whole blob again, and raises when the disk has damaged it."""
        self._entry = entry
        self._file = file
        self._target = target
        self._registries = registries
        self._watcher = watcher
        self._check = check
        self._place: _Place | None = None
        self._what = f"blob {entry.digest} to {target}"

    async def mount(self, source: str) -> bool:
        """Whether the registry took it from another repository; if not, an upload may have begun instead."""
        query = urllib.parse.urlencode({"mount": self._entry.digest, "from": source})
        also = (auth.scope(source, "pull"),)
        try:
            async with self._target.exchange("POST", f"blobs/uploads/?{query}", actions=_ACTIONS, also=also) as answer:
                if answer.status == 201:
                    return True
                if answer.status == 202:
                    self._place = self._begun(answer)
        except (errors.Unauthorized, errors.Unavailable):
            return False  # perhaps it is somebody else's repository: the bytes are here, so they are sent
        return False

    async def run(self) -> None:
        """Send it all, over as many connections and uploads as that takes."""
        patience = retry.Patience(self._registries.config.retry)
        reached, is_checked = 0, False
        while True:
            try:
                return await self._attempt()
            except (errors.Unavailable, errors.Unreachable) as error:
                failure: errors.RegistryError = error
                if self._place:
                    self._place.sure = False
            except (errors.NotFound, errors.BadAnswer) as error:
                if self._place is None:
                    raise
                # The upload is gone, or stands elsewhere than we think: from the start, a few times. Unless it is us.
                failure, self._place = error, None
                if not is_checked:
                    await threads.run(self._check)
                    is_checked = True
            offset = self._place.offset if self._place else 0
            if offset >= reached + self._registries.config.bounds.slow_bytes:
                patience.progressed()
                reached = offset
            await patience.after(failure)

    async def _attempt(self) -> None:
        if self._place and not self._place.sure and not await self._ask(self._place):
            self._place = None
            if await self._target.has_blob(self._entry.digest):
                return None  # the cut came after the last byte
        if self._place is None:
            self._place = await self._begin()
        place, size = self._place, self._entry.size_bytes
        while size - place.offset > MONOLITHIC_BYTES or (place.offset and place.offset < size):
            await self._patch(place)
        return await self._finish(place)

    async def _begin(self) -> _Place:
        async with self._target.exchange("POST", "blobs/uploads/", actions=_ACTIONS) as answer:
            await answers.check(answer, {202}, what=self._what, host=self._target.host)
            return self._begun(answer)

    def _begun(self, answer: aiohttp.ClientResponse) -> _Place:
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        wanted = int(least) if least.isdecimal() and len(least) < 12 else 0
        return _Place(url=self._location(answer), least_bytes=min(wanted, _MAX_CHUNK_BYTES))

    async def _ask(self, place: _Place) -> bool:
        """How much the registry has; False when it knows nothing of this upload, or (docker-registry) nothing more."""
        async with self._target.exchange("GET", place.url, actions=_ACTIONS) as answer:
            if answer.status in {400, 404, 416}:
                return False
            await answers.check(answer, {204, 202}, what=self._what, host=self._target.host)
            self._take(place, answer)
        place.sure = True
        return True

    async def _patch(self, place: _Place) -> None:
        end = min(place.offset + max(CHUNK_BYTES, place.least_bytes), self._entry.size_bytes)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - place.offset),
            "Content-Range": f"{place.offset}-{end - 1}",
        }
        place.sure = False
        await self._send("PATCH", place, headers, end, allowed=202)
        place.sure = True
        if place.offset != end:
            raise errors.Unavailable(f"{self._what}: {end} bytes sent, {place.offset} taken; try again later")

    async def _finish(self, place: _Place) -> None:
        """The last request names the digest, and carries all of a small blob."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self._entry.size_bytes - place.offset),
        }
        place.sure = False
        await self._send("PUT", place, headers, self._entry.size_bytes, allowed=201)

    async def _send(self, method: str, place: _Place, headers: dict[str, str], end: int, *, allowed: int) -> None:
        url = _with_digest(place.url, self._entry.digest) if method == "PUT" else place.url
        bounds = self._registries.config.bounds
        bound_s, finish_s = bounds.slow_s, bounds.finish_s if method == "PUT" else None
        try:
            async with (
                asyncio.timeout(bound_s) as clock,
                self._target.request(
                    method,
                    url,
                    headers=headers,
                    body=lambda: self._bytes(place.offset, end, clock, finish_s or bound_s),
                    unhurried=True,
                    answer_s=finish_s,
                    actions=_ACTIONS,
                ) as answer,
            ):
                await answers.check(answer, {allowed}, what=self._what, host=self._target.host)
                if method == "PATCH":
                    self._take(place, answer)
        except TimeoutError as error:
            what = f"{_PIECE_BYTES} bytes in {bound_s:g} s"
            raise errors.Unavailable(f"{self._what}: the registry takes less than {what}; try again later") from error

    async def _bytes(self, start: int, end: int, clock: asyncio.Timeout, finish_s: float) -> AsyncIterator[bytes]:
        """A part of the blob. Each piece that is taken gives the next one new time, and the last one the answer."""
        loop = asyncio.get_running_loop()
        place = start
        while place < end:
            data = await threads.run(self._read, place, min(_PIECE_BYTES, end - place))
            await self._registries.transfers.outgoing.spend(len(data))
            clock.reschedule(loop.time() + self._registries.config.bounds.slow_s)
            yield data
            place += len(data)
            self._watcher.step(self._entry.digest, "uploading", place, self._entry.size_bytes)
        clock.reschedule(loop.time() + finish_s)

    def _read(self, offset: int, size: int) -> bytes:
        # At a place, not from where the file stands: a sending that was cut may still be reading.
        data = os.pread(self._file.fileno(), size, offset)
        assert data, "a stored blob has the size that its manifest says"
        return data

    def _take(self, place: _Place, answer: aiohttp.ClientResponse) -> None:
        """Where the upload stands: `0-N` says that N + 1 bytes are there, except that `0-0` also says none."""
        place.url = self._location(answer)
        match = _RANGE.fullmatch(answer.headers.get("Range", ""))
        last = int(match[1]) if match else 0
        place.offset = last + 1 if last else 0
        if place.offset > self._entry.size_bytes:
            raise errors.BadAnswer(f"{self._what}: the registry has {place.offset} bytes, more than there are")

    def _location(self, answer: aiohttp.ClientResponse) -> str:
        location = answer.headers.get("Location", "")
        url = transport.leads_to(answer.url, location)
        if url is None or url.scheme not in {"https", answer.url.scheme}:
            raise errors.BadAnswer(f"{self._what}: the registry names no place for the upload ({location!r:.200})")
        return str(url)


def _with_digest(url: str, digest: str) -> str:
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}digest={urllib.parse.quote(digest, safe='')}"
