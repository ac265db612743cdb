"""A place to build images in, for tests: a store with a base image, and what has come out as values to compare.

The base is `localhost/base` of `tests/support/dockerfiles.py`: a static busybox with its applets in /bin, PATH=/bin,
the users root and app, and /tmp.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from images import scratch, unpack
from images.build import builder, configuration, context, layerdiff, views, workshop
from images.image import EPOCH
from images.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, host_platform
from images.store import ImageStore
from tests.support import rootfs as trees

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from images.build.watching import Step
    from images.image import Image

BASE = "localhost/base"


@dataclass(frozen=True, slots=True)
class Node:
    """What a tree has at a path. `content` is a digest, a link's target or a device's number."""

    kind: str
    mode: int
    uid: int
    gid: int
    content: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Witness:
    """Remembers what a build told."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.begins: list[str] = []
        self.labels: list[str] = []
        self.made: list[str] = []
        self.cached: list[str] = []
        self.warnings: list[str] = []
        self.output = b""
        self.wrote_once = threading.Event()

    def begun(self, step: Step) -> None:
        with self._guard:
            self.begins.append(step.text)
            self.labels.append(f"{step.stage} {step.label}/{step.total}")

    def wrote(self, step: Step, data: bytes) -> None:
        del step
        with self._guard:
            self.output += data
        self.wrote_once.set()

    def ended(self, step: Step, *, cached: bool, seconds: float) -> None:
        assert seconds >= 0
        if step.makes_files:
            with self._guard:
                (self.cached if cached else self.made).append(step.text)

    def warned(self, text: str) -> None:
        self.warnings.append(text)


@dataclass(slots=True)
class Bench:
    """Builds below one folder."""

    folder: Path
    store: ImageStore = field(init=False)
    last: Witness = field(init=False, default_factory=Witness)

    def __post_init__(self) -> None:
        self.store = ImageStore(self.folder / "images")

    @property
    def area(self) -> Path:
        return self.folder / "state"

    def add_base(self) -> Image:
        """The base image, made of this machine's busybox."""
        root = trees.busybox(self.folder / "base")
        os.chown(root / "home/app", 1000, 1001)
        with self.store.hold():
            with self.store.writer() as blob:
                write_tree(root, blob)
            settings = configuration.Settings(config={"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]})
            event = configuration.Event(created=EPOCH, created_by="base", empty=False)
            document = settings.told(event).document(host_platform(), (blob.digest,), EPOCH)
            config = Descriptor(media_type=OCI_CONFIG, digest=self.store.put_bytes(document), size_bytes=len(document))
            layer = Descriptor(media_type=OCI_LAYER, digest=blob.digest, size_bytes=blob.size_bytes)
            body = Manifest(media_type=OCI_MANIFEST, config=config, layers=(layer,))
            return self.store.tag(BASE, self.store.put_bytes(body.as_bytes()))

    def context(self, files: Mapping[str, str | bytes]) -> Path:
        """A new context with these files."""
        folder = self.folder / f"context-{len(list(self.folder.iterdir()))}"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        folder.mkdir(exist_ok=True)
        return folder

    def build(self, source: Path | str, files: Mapping[str, str | bytes] | None = None, **options: Any) -> Image:
        """Build a context, or a Dockerfile's text with files beside it."""
        folder = self.context({"Dockerfile": source, **(files or {})}) if isinstance(source, str) else source
        self.last = Witness()
        names = options.pop("names", ())
        with context.folder(folder) as found:
            return builder.build(
                self.store, found, workshop.Options(**options), area=self.area, names=names, watcher=self.last
            )

    def config(self, image: Image) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.read_document(image.config_digest))
        return found

    @contextlib.contextmanager
    def mounted(self, image: Image) -> Iterator[int]:
        """The image's tree."""
        folders = unpack.unpack(self.store, image)
        with (
            scratch.folder(self.store.tmp) as item,
            views.mounted(views.prepare(item.path / "w", folders), folders) as root,
        ):
            yield root

    def tree(self, image: Image) -> dict[str, Node]:
        """Every path of the image."""
        with self.mounted(image) as root:
            top = views.locate(root, "/", os.O_RDONLY | os.O_DIRECTORY)
            try:
                return dict(look(top, ""))
            finally:
                os.close(top)

    def read(self, image: Image, path: str) -> str:
        """A file of the image."""
        with self.mounted(image) as root, os.fdopen(views.locate(root, path, os.O_RDONLY), "rb") as file:
            return file.read().decode()


def write_tree(root: Path, sink: Any) -> None:
    """A folder as a layer with its owners, which `rootfs.tree_to_layer` does not keep."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        layerdiff.settle(fd, epoch_s=1_500_000_000)
        layerdiff.write(fd, sink)
    finally:
        os.close(fd)


def look(folder: int, path: str) -> Iterator[tuple[str, Node]]:
    """Everything below an open folder, and itself as ""."""
    if not path:
        yield "", _node(os.fstat(folder), "", _xattrs(folder))
    for name in sorted(os.listdir(folder)):
        inner = f"{path}/{name}".strip("/")
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            yield inner, _node(found, os.readlink(name, dir_fd=folder), ())
        elif stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
            with os.fdopen(fd, "rb") if stat.S_ISREG(found.st_mode) else contextlib.nullcontext(None) as file:
                content = hashlib.sha256(file.read()).hexdigest() if file else ""
                yield inner, _node(found, content, _xattrs(fd))
                if file is None:
                    yield from look(fd, inner)
            if file is None:
                os.close(fd)
        else:
            yield inner, _node(found, str(found.st_rdev), ())


def _node(found: os.stat_result, content: str, xattrs: tuple[tuple[str, bytes], ...]) -> Node:
    link = stat.S_ISLNK(found.st_mode)
    return Node(
        kind=stat.filemode(found.st_mode)[0],
        mode=0o777 if link else stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        content=content,
        xattrs=xattrs,
    )


def _xattrs(fd: int) -> tuple[tuple[str, bytes], ...]:
    names = (name for name in sorted(os.listxattr(fd)) if not name.startswith("trusted.overlay."))
    return tuple((name, os.getxattr(fd, name)) for name in names)
