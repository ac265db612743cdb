"""Images from a store to a registry.

Rules. Blobs go before the manifests that name them, and manifests before their index: whoever reads the registry
meanwhile finds either the old image or the whole new one. Bytes go as they are stored, so digests stay what they were.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from images import errors as image_errors
from images import lookup, manifest, reference, sweep
from images import progress as progresses
from images.registry import answers, errors, retry, threads, upload

if TYPE_CHECKING:
    from images.manifest import Descriptor, Index, Manifest, Platform
    from images.registry.registries import Registries
    from images.registry.repository import Repository
    from images.store import ImageStore

_MAX_MOUNTS = 2
_MAX_DOCUMENTS = 200  # of one index with all below it; more than any pull brings


async def push(
    store: ImageStore,
    name: str,
    target: str | None = None,
    *,
    registries: Registries,
    progress: progresses.Progress | None = None,
    platform: Platform | None = None,
) -> str:
    """Send the image `name` to the registry that `target` (default: the name itself) says; the digest it has there.

    An index goes as a whole when all of its images are here and no `platform` is asked for; otherwise only the image
    for `platform` (default: this machine's) goes, under the digest of its own manifest.
    """
    ref = reference.parse(target or name)
    if ref.tag is None:
        raise image_errors.InvalidReference(f"{ref}: a push needs a tag to push to; write NAME:TAG")
    async with threads.entered(store.hold()):
        root = await threads.run(_root, store, name, platform)
        work = _Push(
            store=store,
            target=registries.upstream(ref),
            registries=registries,
            progress=progress or progresses.Silent(),
            mounts=await threads.run(_mounts, store, ref),
        )
        await work.tree(root, ref.tag)
    return root


def _root(store: ImageStore, name: str, platform: Platform | None) -> str:
    """The digest of what is sent: an index that is here in full, or the manifest for the platform."""
    found = lookup.digest_of(store, name)
    if platform is None and _is_whole(store, found, set()):
        return found
    wanted = platform or manifest.host_platform()
    image = store.resolve(found, platform=wanted)
    lacking = store.missing(image.digest)
    if lacking:
        raise image_errors.NotFound(f"image {name}: blob {lacking[0].digest} is missing; pull the image again")
    return image.digest


def _is_whole(store: ImageStore, digest: str, seen: set[str]) -> bool:
    """A registry takes an index only with all that it names, also what is no image."""
    if digest in seen:
        return True
    seen.add(digest)
    if not store.has(digest):
        return False
    found = sweep.readable(functools.partial(_load, store), digest)
    if found is None:
        return False
    if isinstance(found, manifest.Manifest):
        return all(store.has(entry.digest) for entry in (found.config, *found.layers))
    if len(seen) + len(found.manifests) > _MAX_DOCUMENTS or len(found.documents) < len(found.manifests):
        return False
    return all(_is_whole(store, entry.digest, seen) for entry in found.manifests)


def _load(store: ImageStore, digest: str) -> Manifest | Index:
    return manifest.parse_any(store.read_document(digest), what=f"manifest {digest}")


def _mounts(store: ImageStore, ref: reference.Reference) -> dict[str, list[str]]:
    """Blobs that other repositories of the registry have, as far as the names in the store tell."""
    found: dict[str, list[str]] = {}
    try:
        images = store.list()
    except image_errors.ImageError:
        return {}  # another image of this store is damaged; what could be mounted is sent
    for image in images:
        names = [reference.parse(name) for name in image.names]
        others = {other.repository for other in names if other.registry == ref.registry} - {ref.repository}
        for digest in (image.config_digest, *(layer.digest for layer in image.layers)):
            found.setdefault(digest, []).extend(sorted(others))
    return {digest: list(dict.fromkeys(names))[:_MAX_MOUNTS] for digest, names in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Push:
    store: ImageStore
    target: Repository
    registries: Registries
    progress: progresses.Progress
    mounts: dict[str, list[str]]
    sent: set[str] = field(default_factory=set)

    async def tree(self, digest: str, tag: str | None) -> None:
        """A manifest or an index with all below it; `tag` for the topmost."""
        found = await threads.run(_load, self.store, digest)
        if isinstance(found, manifest.Manifest):
            blobs = {entry.digest: entry for entry in (found.config, *found.layers)}
            await threads.together([self._blob(entry) for entry in blobs.values()])
        else:
            for entry in found.manifests:
                if entry.digest not in self.sent:
                    await self.tree(entry.digest, None)
        await self._document(digest, found.media_type, tag or digest)
        self.sent.add(digest)

    async def _blob(self, entry: Descriptor) -> None:
        await upload.send(
            self.store,
            entry,
            self.target,
            registries=self.registries,
            watcher=self.progress,
            mounts=self.mounts.get(entry.digest, ()),
        )

    async def _document(self, digest: str, media_type: str, target: str) -> None:
        data = await threads.run(self.store.read_document, digest)
        what = f"manifest {digest} to {self.target}:{target}"

        async def attempt() -> None:
            headers = {"Content-Type": media_type}
            async with self.target.exchange(
                "PUT", f"manifests/{target}", headers=headers, body=lambda: data, actions=("pull", "push")
            ) as answer:
                await answers.check(answer, {200, 201}, what=what, host=self.target.host)
                said = answer.headers.get("Docker-Content-Digest", digest)
                if said != digest:
                    raise errors.BadAnswer(
                        f"{what}: the registry stored it as {said!r:.100}; it changes what it is sent"
                    )

        await retry.persist(self.registries.config.retry, attempt)
        self.progress.step(digest, "done", len(data), len(data))
