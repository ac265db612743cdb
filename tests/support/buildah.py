"""Debian's buildah as a judge: builds below a folder of its own, and gives trees and configurations as values.

It keeps whole trees (storage driver vfs), so that a tree is read where it lies, without a mount. The folder's path must
be short: sockets are made below it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from images import export
from tests.support import building

if TYPE_CHECKING:
    from pathlib import Path

    from images.image import Image
    from images.store import ImageStore
    from tests.support.dockerfiles import Case

_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """An image that buildah has built."""

    tree: dict[str, building.Node]
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Buildah:
    """One storage of its own."""

    folder: Path

    @property
    def options(self) -> tuple[str, ...]:
        root, run = self.folder / "root", self.folder / "run"
        return ("--root", str(root), "--runroot", str(run), "--storage-driver", "vfs")

    def load(self, store: ImageStore, image: Image) -> None:
        """Take in an image under its first name."""
        path = self.folder / "image.tar"
        with path.open("wb") as file:
            export.export_archive(store, image, file, "oci")
        storage = f"containers-storage:[vfs@{self.folder}/root+{self.folder}/run]{image.names[0]}"
        self._run("skopeo", "copy", "--insecure-policy", f"oci-archive:{path}", storage)
        path.unlink()

    def build(self, case: Case) -> Outcome:
        """Build a case; raises CalledProcessError when buildah refuses."""
        arguments = [f"--build-arg={name}={value}" for name, value in case.build_args.items()]
        target = [f"--target={case.target}"] if case.target else []
        said = ("--quiet", "--isolation", "chroot", "--pull-never", "--format", "docker", *arguments, *target)
        image_id = self._run("buildah", *self.options, "bud", *said, str(case.folder)).split()[-1]
        images = json.loads((self.folder / "root/vfs-images/images.json").read_text())
        layer = next(image["layer"] for image in images if image["id"] == image_id)
        top = os.open(self.folder / "root/vfs/dir" / layer, os.O_RDONLY | os.O_DIRECTORY)
        try:
            tree = dict(building.look(top, ""))
        finally:
            os.close(top)
        config = base64.b64encode(f"sha256:{image_id}".encode()).decode()
        text = (self.folder / "root/vfs-images" / image_id / f"={config}").read_text()
        return Outcome(tree=tree, document=json.loads(text))

    def _run(self, *command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S).stdout
