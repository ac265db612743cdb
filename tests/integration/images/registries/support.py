"""Small things that the tests of registries share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from images import manifest
from images.registry import config, credentials, retry
from images.store import ImageStore
from tests.support.stubregistry import Stub
from tests.unit.images import makers

Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
ADA = credentials.Credentials(user="ada", password="secret")
HURRIED = config.Bounds(connect_s=2, silence_s=0.3, document_s=2, slow_s=0.5, slow_bytes=1 << 10)
TWICE = retry.Policy(attempts=2, base_s=0.01, cap_s=0.01)
LAYER = makers.archive(makers.member("f", content=b"layer" * 1000))


class Steps:
    """Everything that a progress was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, int | None]] = []

    def step(self, digest: str, doing: str, done_bytes: int, total_bytes: int | None) -> None:
        self.told.append((digest, doing, done_bytes, total_bytes))

    def words(self) -> set[str]:
        return {doing for _, doing, _, _ in self.told}


def skopeo(*arguments: str | Path) -> str:
    command = ["skopeo", "--insecure-policy", *(str(part) for part in arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def filled(stub: Stub, *layers: bytes, **changes: Any) -> str:
    """An image `web:1` on the stub; `changes` are keys of its manifest. Returns the manifest's digest."""
    layers = layers or (LAYER,)
    document = makers.config_document(*layers)
    for data in (document, *layers):
        stub.blobs[makers.descriptor(data, "")["digest"]] = data
    body = json.loads(makers.manifest_document(document, *layers)) | changes
    return stub.put(json.dumps(body).encode(), manifest.OCI_MANIFEST, "1")


def path_of(*parts: str, answer: Answer) -> Answer:
    """The answer, for paths that hold all the parts."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        return await answer(request) if all(part in request.path for part in parts) else None

    return fault


def basic(answer: Answer) -> Answer:
    """Wants a login first."""

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="tests"'})
        return await answer(request)

    return fault


def is_clean(store: ImageStore) -> bool:
    """No name, no work in progress, no lock of a blob."""
    return not (store.list() or list(store.tmp.iterdir()) or list((store.root / "locks").glob("blob-*")))
