"""What the tests of registries share: a store, Docker's configuration in a folder of its own, and layers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from images import archive
from images.registry import config, credentials, registries, retry
from images.store import ImageStore
from tests.support import registry
from tests.unit.images import makers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from images.image import Image

QUICK = retry.Policy(base_s=0.01, cap_s=0.05)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def other(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "other")


@pytest.fixture
def kept(tmp_path: Path) -> credentials.DockerConfig:
    """Nobody's own credentials take part in a test."""
    return credentials.DockerConfig(tmp_path / "docker/config.json")


@pytest.fixture
def door(kept: credentials.DockerConfig) -> Callable[..., registries.Registries]:
    """Registries by configuration, with short waits."""

    def make(hosts: dict[str, config.Registry] | None = None, **fields: object) -> registries.Registries:
        settings = config.Config(registries=hosts or {}, **{"retry": QUICK, **fields})  # type: ignore[arg-type]  # fields by name
        return registries.Registries(settings, kept=kept)

    return make


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[registry.Server]:
    """A plain docker-registry."""
    with registry.running(tmp_path / "registry") as server:
        yield server


@pytest.fixture
def load(store: ImageStore) -> Callable[..., Image]:
    """An image of layers with so many random bytes each."""

    def run(*sizes: int, name: str = "web", seed: int = 1) -> Image:
        lots = random.Random(seed)
        layers = [makers.archive(makers.member("f", content=lots.randbytes(size))) for size in sizes]
        return archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(*layers))), name=name)

    return run
