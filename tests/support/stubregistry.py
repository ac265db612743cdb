"""A registry in the test's own event loop: it keeps to the protocol until a test gives it a fault.

It keeps what arrives of an upload whose connection is cut, as the specification wishes; docker-registry 2.8 does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request that came: its path with the query, and its headers."""

    method: str
    path: str
    headers: dict[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(slots=True, kw_only=True)
class Stub:
    """`fault` sees each request first and may answer it; whatever a real registry would do follows otherwise."""

    address: str = ""
    scheme: str = "http"
    documents: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    fault: Fault | None = None
    least_chunk_bytes: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    def lines(self) -> list[str]:
        return [str(entry) for entry in self.asked]

    def put(self, data: bytes, media_type: str, *names: str) -> str:
        """Store a document under its digest and under tags."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for name in (digest, *names):
            self.documents[name] = (media_type, data)
        return digest

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.title(): value for name, value in request.headers.items()}
        self.asked.append(Asked(method=request.method, path=request.path_qs, headers=headers))
        if self.fault and (answer := await self.fault(request)):
            return answer
        path = request.path
        if path == "/v2/":
            return web.json_response({})
        _, _, name = path.rpartition("/")
        if "/blobs/uploads/" in path:
            return await self._upload(request, name)
        if "/blobs/" in path:
            return self._blob(request, name)
        return await self._document(request, name)

    async def _document(self, request: web.Request, name: str) -> web.Response:
        if request.method == "PUT":
            digest = self.put(await request.read(), request.content_type, name)
            return web.Response(status=201, headers={"Docker-Content-Digest": digest})
        if name not in self.documents:
            return unknown("MANIFEST_UNKNOWN", "manifest unknown")
        media_type, data = self.documents[name]
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return web.Response(body=data, headers={"Content-Type": media_type, "Docker-Content-Digest": digest})

    def _blob(self, request: web.Request, digest: str) -> web.Response:
        if digest not in self.blobs:
            return unknown("BLOB_UNKNOWN", "blob unknown")
        data = self.blobs[digest]
        match = _RANGE.match(request.headers.get("Range", ""))
        if not match:
            return web.Response(body=data)
        start = int(match[1])
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return web.Response(status=206, body=data[start:], headers=headers)

    async def _upload(self, request: web.Request, name: str) -> web.Response:
        if request.method == "POST":
            name = uuid.uuid4().hex
            self.uploads[name] = bytearray()
            return self._place(request, name, status=202)
        if name not in self.uploads:
            return unknown("BLOB_UPLOAD_UNKNOWN", "upload unknown")
        if request.method == "GET":
            return self._place(request, name, status=204)
        there = self.uploads[name]
        start = request.headers.get("Content-Range", f"{len(there)}-").partition("-")[0]
        if int(start) != len(there):
            return web.Response(status=416)
        with contextlib.suppress(ConnectionError, web.RequestPayloadError):
            async for data in request.content.iter_any():
                there += data
        if request.method == "PATCH":
            return self._place(request, name, status=202)
        digest = f"sha256:{hashlib.sha256(there).hexdigest()}"
        if digest != request.query["digest"]:
            return unknown("DIGEST_INVALID", "digest did not match", status=400)
        self.blobs[digest] = bytes(self.uploads.pop(name))
        return web.Response(status=201)

    def _place(self, request: web.Request, name: str, *, status: int) -> web.Response:
        base = request.path.rpartition("/")[0]
        there = max(0, len(self.uploads[name]) - 1)
        headers = {"Location": f"{base}/{name}", "Range": f"0-{there}"}
        if self.least_chunk_bytes:
            headers["OCI-Chunk-Min-Length"] = str(self.least_chunk_bytes)
        return web.Response(status=status, headers=headers)


def unknown(code: str, message: str, *, status: int = 404) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)


@contextlib.asynccontextmanager
async def running(*, context: ssl.SSLContext | None = None) -> AsyncIterator[Stub]:
    """On a loopback port of its own, with TLS where there is a context."""
    stub = Stub(scheme="https" if context else "http")
    runner = web.ServerRunner(web.Server(stub.handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        stub.address = f"127.0.0.1:{runner.addresses[0][1]}"
        yield stub
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def raw(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that speaks no HTTP but what the test writes; its address."""
    ended: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ended.add(task)
        try:
            with contextlib.suppress(ConnectionError):
                await answer(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
