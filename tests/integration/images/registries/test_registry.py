"""Pull and push against Debian's docker-registry, with Debian's skopeo and podman on the same registry."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from images.image import Image
from images.registry import pull, push, registries
from images.store import ImageStore
from tests.support import registry
from tests.support.aio import bounded

Door = Callable[..., registries.Registries]
Load = Callable[..., Image]
KIB, MIB = 1 << 10, 1 << 20


def skopeo(*arguments: str | Path) -> str:
    command = ["skopeo", "--insecure-policy", *(str(part) for part in arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@bounded(60)
async def test_what_is_pushed_is_pulled_with_the_same_digests(
    store: ImageStore, other: ImageStore, door: Door, peer: registry.Server, load: Load
) -> None:
    """From one store through a registry into another: manifest, config and layers are the same bytes."""
    image = load(100, 5 * MIB, 0)
    name = f"{peer.address}/team/web:1"
    async with door() as shared:
        assert await push.push(store, "web", name, registries=shared) == image.digest
        pulled = await pull.pull(other, name, registries=shared)
        assert await pull.resolve(name, registries=shared) == image.digest
    assert (pulled.digest, pulled.layers, pulled.names) == (image.digest, image.layers, (name,))
    for layer in image.layers:
        other.check_blob(layer.digest)
