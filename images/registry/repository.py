"""One repository of one registry: the requests of the OCI distribution specification (1.1) that reading needs.

The rule: what comes back is compared with what was announced before anybody sees it: status, type, size, digest. An
answer that says something else than the protocol is an error, not an excuse to guess.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from images import digest as digests
from images import documents, manifest
from images import errors as image_errors
from images.registry import answers, auth, errors, retry, transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    import aiohttp

    from images.registry import config

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A manifest or index as it came: the very bytes, their digest, and the type that was announced."""

    data: bytes
    digest: str
    media_type: str


class Repository:
    """`name` at the registry `host`; a mirror has another name for the same thing."""

    def __init__(
        self, host: str, name: str, *, http: transport.Transport, authorizer: auth.Authorizer, settings: config.Config
    ) -> None:
        self.host = host
        self.name = name
        self.config = settings
        self._http = http
        self._authorizer = authorizer

    def __str__(self) -> str:
        return f"{self.host}/{self.name}"

    async def head(self, target: str) -> str | None:
        """The digest that a tag stands for, by HEAD; None when the registry does not say it so."""
        what = self._title(target)

        async def attempt() -> str | None:
            async with self.exchange("HEAD", f"manifests/{target}", headers={"Accept": manifest.ACCEPT}) as response:
                if response.status in {400, 405}:
                    return None
                await answers.check(response, {200}, what=what, host=self.host)
                said = response.headers.get("Docker-Content-Digest")
                return said if digests.is_digest(said) else None

        return await retry.persist(self.config.retry, attempt)

    async def manifest(self, target: str, *, parse: manifest.Parser = manifest.parse) -> Document:
        """The document of a tag or digest, by GET; `parse` has to take it."""
        what = self._title(target)

        async def attempt() -> Document:
            async with self.exchange("GET", f"manifests/{target}", headers={"Accept": manifest.ACCEPT}) as response:
                await answers.check(response, {200}, what=what, host=self.host)
                media_type = _media_type(response, what)
                data = await transport.read(response, limit=documents.MAX_DOCUMENT_BYTES, what=what)
                document = _checked(data, media_type, response.headers.get("Docker-Content-Digest"), target, what)
                _read(parse, document, what)
                return document

        return await retry.persist(self.config.retry, attempt)

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository has the blob, by one HEAD; trying again is the caller's business."""
        async with self.exchange("HEAD", f"blobs/{digest}", actions=("pull", "push")) as response:
            if response.status == 404:
                return False
            await answers.check(response, {200}, what=f"blob {digest} of {self}", host=self.host)
            return True

    @contextlib.asynccontextmanager
    async def blob(self, digest: str, *, offset: int = 0) -> AsyncIterator[Blob]:
        """A blob from `offset` on, once; trying again after a cut is the caller's business."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        what = f"blob {digests.check(digest)} of {self}"
        async with self.request("GET", f"blobs/{digest}", headers=headers) as response:
            async with transport.within(self.config.bounds.document_s, what):
                await answers.check(response, {200, 206}, what=what, host=self.host)
            yield Blob(response, skip=_skip(response, offset, what))

    @contextlib.asynccontextmanager
    async def exchange(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """A question with a small answer, which is bounded in time as a whole; options as for `request`."""
        async with self.request(method, path, time_s=self.config.bounds.document_s, **options) as response:
            yield response

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        unhurried: bool = False,
        answer_s: float | None = None,
        time_s: float | None = None,
        actions: Collection[str] = ("pull",),
        also: auth.Scopes = (),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One question to the registry; `path` is below the repository, or a whole URL, which may be another server's.

        `also` are scopes for other repositories; `body`, `unhurried` and `answer_s` as in `transport.Request`. `time_s`
        bounds it from when it is sent to the end of the block; a token for it is fetched before.
        """
        base = await self._http.base(self.host)
        url = path if "://" in path else f"{base}/v2/{self.name}/{path}"
        home = transport.same_server(url, base)
        request = transport.Request(
            method=method,
            url=url,
            host=self.host if home else transport.server(url),
            headers=headers or {},
            body=body,
            unhurried=unhurried,
            answer_s=answer_s,
        )
        scopes = (auth.scope(self.name, *actions), *also)
        # What lies elsewhere, such as an upload's place in a cloud, never sees a header of ours.
        if home:
            async with self._authorizer.send(request, scopes, time_s=time_s) as response:
                yield response
        else:
            async with transport.within(time_s, str(request)), self._http.send(request) as response:
                yield response

    def _title(self, target: str) -> str:
        return f"image {self}{'@' if digests.is_digest(target) else ':'}{target}"


class Blob:
    """The bytes of a blob as they come; a registry without Range sends again what was had before."""

    def __init__(self, response: aiohttp.ClientResponse, *, skip: int) -> None:
        self._content = response.content
        self._skip = skip

    async def read(self) -> bytes:
        """What has come, at least one byte until the end."""
        return await self._content.readany()

    def fresh(self, data: bytes) -> bytes:
        """The part of what was read that was not had before; give it each piece once, in order."""
        new, self._skip = data[self._skip :], max(0, self._skip - len(data))
        return new


def _skip(response: aiohttp.ClientResponse, offset: int, what: str) -> int:
    """How many bytes come that were not asked for."""
    if response.status == 200:
        return offset
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match or int(match[1]) != offset:
        said = response.headers.get("Content-Range")
        raise errors.BadAnswer(f"{what}: asked for bytes from {offset} on, got {said!r:.60}; the registry is broken")
    return 0


def _media_type(response: aiohttp.ClientResponse, what: str) -> str:
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type.startswith(_SCHEMA_1):
        remedy = "it is older than 2016; convert it with `skopeo copy` and push it again"
        raise errors.BadAnswer(f"{what}: is of schema 1, which is not read: {remedy}")
    if media_type not in manifest.MANIFEST_TYPES | manifest.INDEX_TYPES:
        raise errors.BadAnswer(f"{what}: has type {media_type!r:.100}, which is no image's; check the name")
    return media_type


def _read(parse: manifest.Parser, document: Document, what: str) -> None:
    """What cannot be read is this place's mistake: the next one may have it right."""
    try:
        parse(document.data, what=what, media_type=document.media_type)
    except image_errors.InvalidImage as error:
        raise errors.BadAnswer(str(error)) from error


def _checked(data: bytes, media_type: str, said: str | None, target: str, what: str) -> Document:
    found = digests.of_bytes(data)
    wanted = target if digests.is_digest(target) else said
    # A digest of another algorithm cannot be compared; a tag then means whatever came.
    if digests.is_digest(wanted) and wanted != found:
        raise errors.BadAnswer(f"{what}: announced as {wanted}, but its bytes have digest {found}; do not use it")
    return Document(data=data, digest=found, media_type=media_type)
