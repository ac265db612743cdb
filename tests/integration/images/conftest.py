"""What the image tests share: a store below a temporary folder, and images made of given layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from images import archive, image
from images.store import ImageStore
from tests.unit.images import makers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def load(store: ImageStore) -> Callable[..., image.Image]:
    """Import layers, given as tar bytes, as one image."""

    def run(*layers: bytes, name: str = "web") -> image.Image:
        data = makers.files(makers.docker_archive(*layers))
        return archive.import_archive(store, makers.stream(data), name=name)

    return run
