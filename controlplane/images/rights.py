"""Which blobs and names of images a node may ask for: those of the tasks that were given to it.

The rule: what cannot be told is refused for now. An image whose manifest is not on this instance yet has blobs that
nobody here knows, and the node asks again.
"""

from controlplane.core import kept_images
from controlplane.core import request_errors as errors
from controlplane.core.trust import owned
from controlplane.images.files import Threads
from controlplane.store.cache import Cache
from images import errors as image_errors
from images.store import ImageStore


class NodeRights:
    """Asked before a node is answered."""

    def __init__(self, known: Cache, store: ImageStore, threads: Threads) -> None:
        self._cache = known
        self._store = store
        self._threads = threads
        self._parts: dict[str, frozenset[str]] = {}
        """The blobs of images that are whole here. What a digest stands for never changes."""

    def check_name(self, node_id: str, text: str) -> None:
        """That a task of the node needs the image. Raises Forbidden."""
        if not owned.may_have(self._cache.snapshot(), node_id, text):
            raise errors.Forbidden(f"no task of the node {node_id} runs the image {text:.200}")

    async def check_blob(self, node_id: str, digest: str) -> None:
        """That a blob is of an image that a task of the node needs. Raises Forbidden, or NotReachable."""
        roots = owned.digests(self._cache.snapshot(), node_id)
        if digest in roots:
            return
        for root in roots:
            if digest in await self._parts_of(root):
                return
        if any(not self._store.has(root) for root in roots):
            text = f"it is not known here yet whether a task of the node {node_id} needs the blob {digest:.80}"
            raise errors.NotReachable(text, hint="try again in a moment")
        raise errors.Forbidden(f"no task of the node {node_id} runs an image with the blob {digest:.80}")

    async def _parts_of(self, root: str) -> frozenset[str]:
        """The blobs of an image, as far as this instance can tell."""
        if root in self._parts:
            return self._parts[root]
        found, is_whole = await self._threads.run(self._look, root)
        if is_whole:
            self._forget_gone()
            self._parts[root] = found
        return found

    def _forget_gone(self) -> None:
        for gone in self._parts.keys() - kept_images.wanted(self._cache.snapshot()):
            del self._parts[gone]

    def _look(self, root: str) -> tuple[frozenset[str], bool]:
        """Blocks. What was damaged on the disk is fetched anew; until then nobody can tell."""
        try:
            found = self._store.reached(root)
            return found, bool(found) and not self._store.missing(root)
        except image_errors.ImageError:
            return frozenset(), False
