"""What all stages of one build share: the store, the cache, the context, trees to copy from, and how a layer is made.

Rules. Everything is done inside `store.hold()`. A step works in a folder below the store's `tmp/`; the layer that it
makes is renamed into its place together with its files, so that it is never unpacked. Trees of stages and images are
mounted once, for reading, and let go at the end.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from images import blobs, disk, errors, image, manifest, scratch, sweep, syscalls, unpack
from images import digest as digests
from images.build import cache, containers, layerdiff, sources, views, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from images.build.context import Context
    from images.image import Image, Layer
    from images.manifest import Platform
    from images.store import ImageStore

_LAYER_TIMEOUT_S = 600.0
_NO_CONFIG = image.Config()

Layers = tuple["Layer", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person may say about a build. `epoch_s` bounds every time in the image (SOURCE_DATE_EPOCH)."""

    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    platform: Platform = field(default_factory=manifest.host_platform)
    use_cache: bool = True
    network: str = "default"
    epoch_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A step's tree, open for reading and writing, and where it lies."""

    place: views.Workplace
    layers: Layers
    folders: tuple[Path, ...]


class Workshop:
    """Use as a context manager; methods may be called from any thread."""

    def __init__(
        self,
        store: ImageStore,
        context: Context,
        options: Options,
        *,
        running: containers.Containers,
        watcher: watching.Watcher,
        pull: Callable[[str, Platform], None] | None,
    ) -> None:
        self.store = store
        self.context = context
        self.options = options
        self.containers = running
        self.watcher = watcher
        self.cache = cache.Cache(store=store, reads=options.use_cache)
        self.stopped = threading.Event()
        self._pull = pull
        self._stack = contextlib.ExitStack()
        self._trees: dict[str, sources.Tree] = {}
        self._tree_lock = threading.Lock()
        self._images: dict[str, Image] = {}
        self._image_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # Images and trees -------------------------------------------------------------------------------------------------

    def image(self, name: str, platform: Platform | None = None) -> Image:
        """An image of the store, or pulled into it."""
        wanted = platform or self.options.platform
        with self._image_lock:
            key = f"{name} {wanted}"
            if key not in self._images:
                self._images[key] = self._find_image(name, wanted)
            return self._images[key]

    def _find_image(self, name: str, platform: Platform) -> Image:
        try:
            found = self.store.resolve(name, platform=platform)
            if not self.store.missing(found.digest):
                return found
        except errors.NotFound:
            if self._pull is None:
                raise
        if self._pull is None:
            raise errors.NotFound(f"image {name} is not whole; import or fetch it again")
        self._pull(name, platform)
        return self.store.resolve(name, platform=platform)

    def folders(self, layers: Layers) -> tuple[Path, ...]:
        """The layers unpacked, bottom to top."""
        whole = image.Image(
            digest="layers", config_digest="", platform=self.options.platform, layers=layers, config=_NO_CONFIG
        )
        return tuple(unpack.stack(self.store, whole))

    def tree(self, layers: Layers, title: str) -> sources.Tree:
        """The files of a stage or an image, to copy from."""
        chain = chain_id(layers)
        with self._tree_lock:
            if chain not in self._trees:
                folder = self._stack.enter_context(scratch.folder(self.store.tmp)).path
                below = self.folders(layers)
                root = self._stack.enter_context(views.mounted(views.prepare(folder / "w", below), below))
                self._trees[chain] = sources.Tree(fd=root, title=title)
            return self._trees[chain]

    # Steps ------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def work(self, layers: Layers) -> Iterator[Work]:
        """A folder for a step on these layers."""
        below = self.folders(layers)
        with scratch.folder(self.store.tmp) as item:
            yield Work(place=views.prepare(item.path / "w", below), layers=layers, folders=below)

    @contextlib.contextmanager
    def opened(self, work: Work) -> Iterator[int]:
        """The step's tree by its root's descriptor."""
        with views.mounted(work.place, work.folders) as root:
            yield root

    def commit(self, work: Work) -> Layer:
        """What the step has changed, as a layer of the store that is unpacked already."""
        upper = os.open(work.place.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            layerdiff.settle(upper, epoch_s=self.options.epoch_s)
            with self.store.writer() as blob:
                layerdiff.write(upper, blob)
            made = image.Layer(
                digest=blob.digest, diff_id=blob.digest, size_bytes=blob.size_bytes, media_type=manifest.OCI_LAYER
            )
            # For a prune, which else counts the files of the layer.
            (work.place.upper.parent / sweep.SIZE_FILE).write_text(str(blob.size_bytes))
            self._adopt(work, made, upper)
        finally:
            os.close(upper)
        return made

    def _adopt(self, work: Work, made: Layer, upper: int) -> None:
        chain = chain_id((*work.layers, made))
        target = self.store.layer_path(chain)
        with self.store.layer_lock(chain, timeout_s=_LAYER_TIMEOUT_S):
            if not target.exists():
                with disk.storage_errors(f"layer {made.digest}"):
                    syscalls.syncfs(upper)
                    work.place.upper.parent.rename(target.parent)
                    blobs.sync_folder(self.store.layers)

    def now(self) -> str:
        """The time that goes into the image, RFC 3339."""
        return timestamp(int(time.time()) if self.options.epoch_s is None else self.options.epoch_s)

    def no_later(self, created: str) -> str:
        """The time of a base image, unless that is after what SOURCE_DATE_EPOCH says."""
        epoch_s = self.options.epoch_s
        if epoch_s is None:
            return created
        try:
            found = dt.datetime.fromisoformat(created)
        except ValueError:
            return self.now()
        aware = found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)
        return created if aware.timestamp() <= epoch_s else self.now()

    @property
    def beginning(self) -> str:
        """The time of what was never made."""
        return timestamp(0)

    def platform(self, text: str) -> Platform:
        """The platform that a FROM names, by default that of the build."""
        return parse_platform(text) if text else self.options.platform

    def check_stopped(self) -> None:
        if self.stopped.is_set():
            raise containers.Stopped("the build was stopped")


def parse_platform(text: str) -> Platform:
    """`linux/arm64` or `linux/arm/v7`."""
    system, slash, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    if not (system and slash and architecture) or "/" in variant:
        raise errors.InvalidReference(f"platform {text!r:.60}: expected SYSTEM/MACHINE, such as linux/amd64")
    return manifest.Platform(os=system, architecture=architecture, variant=variant)


def timestamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def chain_id(layers: Layers) -> str:
    """What names a stack of layers; that of no layers is a word."""
    chain = digests.chain_ids(tuple(layer.diff_id for layer in layers))
    return chain[-1] if chain else "scratch"
