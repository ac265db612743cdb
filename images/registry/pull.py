"""Images from registries into a store, and what a tag stands for right now.

Rules. A name is given last, to a complete image; a pull that fails leaves the name with what had it. What is there is
not asked for: of an image that is up to date, one HEAD. And everything happens inside `store.hold()`, so that no
`prune` takes half a pull for litter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import documents, manifest, reference
from images import progress as progresses
from images.registry import download, errors, sources, threads

if TYPE_CHECKING:
    from collections.abc import Iterable

    from images.image import Image
    from images.manifest import Descriptor, Index, Manifest, Platform
    from images.registry.registries import Registries
    from images.registry.repository import Document, Repository
    from images.store import ImageStore

_MAX_MANIFESTS = 100


async def resolve(name: str, *, registries: Registries) -> str:
    """The digest that pins what the name stands for now: by HEAD, or by GET where a registry's HEAD does not say it."""
    ref = reference.parse(name)
    if ref.digest is not None:
        return ref.digest
    tag = ref.tag or reference.DEFAULT_TAG

    async def ask(place: Repository) -> str:
        return await place.head(tag) or (await place.manifest(tag)).digest

    return await sources.Sources(registries.sources(ref)).first(ask)


async def pull(
    store: ImageStore,
    name: str,
    *,
    registries: Registries,
    progress: progresses.Progress | None = None,
    platform: Platform | None = None,
    all_platforms: bool = False,
) -> Image:
    """Have the image in the store, under its name unless it is pinned by a digest alone.

    Of an index: the image for `platform` (default: this machine's), or all that it lists, which are attestations too.
    The name then stands for the index, but for the image itself when that is for another machine than this one.
    """
    work = _Pull(
        store=store,
        places=sources.Sources(registries.sources(reference.parse(name))),
        registries=registries,
        progress=progress or progresses.Silent(),
        wanted=platform,
    )
    async with threads.entered(store.hold()):
        return await work.run(reference.parse(name), all_platforms=all_platforms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pull:
    store: ImageStore
    places: sources.Sources
    registries: Registries
    progress: progresses.Progress
    wanted: Platform | None

    @property
    def platform(self) -> Platform:
        return self.wanted or manifest.host_platform()

    async def run(self, ref: reference.Reference, *, all_platforms: bool) -> Image:
        root = await self._root(ref)
        manifests = await self._manifests(root, all_platforms=all_platforms)
        await self._blobs([found for _, found in manifests])
        chosen = root if all_platforms else manifests[0][0]
        image = await threads.run(self.store.resolve, chosen, platform=self.platform)
        if self.wanted and not self.wanted.runs(image.platform):
            raise errors.NotFound(f"{ref} is no image for {self.wanted}; it is for {image.platform}")
        # A name that stands for an index is read for this machine, wherever it is read.
        target = root if self.platform == manifest.host_platform() else chosen
        named = ref.tagged if ref.tag is not None else None
        if named is not None and self.store.names().get(named) != target:
            await threads.run(self.store.tag, named, target)
        else:
            await threads.run(self.store.touch, target)  # asked for again: it is not old
        return await threads.run(self.store.resolve, target, platform=self.platform)

    async def _root(self, ref: reference.Reference) -> str:
        """The digest of the document that the name stands for, which is then stored."""
        target = ref.digest or ref.tag or reference.DEFAULT_TAG
        if ref.digest is None and ref.tagged in self.store.names():
            # Most likely nothing has changed, and a HEAD is all that it takes to know.
            target = await self.places.first(lambda place: self._head(place, target))
        if target == ref.tag or not self.store.has(target):
            return await self._keep(await self.places.first(lambda place: place.manifest(target)))
        return target

    async def _head(self, place: Repository, tag: str) -> str:
        return await place.head(tag) or tag

    async def _manifests(self, root: str, *, all_platforms: bool) -> list[tuple[str, Manifest]]:
        """The images below the root, this platform's or all, each with its digest."""
        found: list[tuple[str, Manifest]] = []
        todo = [(root, 0)]
        parse = manifest.parse_any if all_platforms else manifest.parse
        while todo:
            digest, depth = todo.pop(0)
            document = await self._document(digest, parse)
            if isinstance(document, manifest.Manifest):
                found.append((digest, document))
                continue
            entries = self._entries(document, digest, depth, all_platforms=all_platforms)
            if depth == manifest.MAX_INDEX_DEPTH or len(found) + len(todo) + len(entries) > _MAX_MANIFESTS:
                raise errors.BadAnswer(f"index {root}: nested too deep, or more than {_MAX_MANIFESTS} images; name one")
            for entry in entries:
                await self._listed(entry, parse)
                todo.append((entry.digest, depth + 1))
        return found

    def _entries(self, index: Index, digest: str, depth: int, *, all_platforms: bool) -> tuple[Descriptor, ...]:
        # Attestations come along: without them a registry does not take the index.
        if all_platforms and depth:
            return index.documents
        # The store gives a name only to what this machine can run, so that is settled before all of it is fetched.
        ours = index.choose(self.platform, what=f"index {digest}")
        return index.documents if all_platforms else (ours,)

    async def _document(self, digest: str, parse: manifest.Parser) -> Manifest | Index:
        data = await threads.run(self.store.read_document, digest)
        return parse(data, what=f"manifest {digest}")

    async def _listed(self, entry: Descriptor, parse: manifest.Parser) -> None:
        """A manifest that an index names."""
        if self.store.has(entry.digest):
            return

        async def ask(place: Repository) -> Document:
            document = await place.manifest(entry.digest, parse=parse)
            if document.media_type != entry.media_type or len(document.data) != entry.size_bytes:
                what = f"manifest {entry.digest} of {place}"
                raise errors.BadAnswer(f"{what}: has another type or size than its index says; rebuild it")
            return document

        await self._keep(await self.places.first(ask))

    async def _keep(self, document: Document) -> str:
        return await threads.run(self.store.put_bytes, document.data)

    async def _blobs(self, manifests: Iterable[Manifest]) -> None:
        wanted: dict[str, Descriptor] = {}
        for found in manifests:
            if found.config.size_bytes > documents.MAX_DOCUMENT_BYTES:
                raise errors.BadAnswer(f"config {found.config.digest}: larger than any document; it is refused")
            wanted |= {entry.digest: entry for entry in (found.config, *found.layers)}
        await threads.together([self._blob(entry) for entry in wanted.values()])

    async def _blob(self, entry: Descriptor) -> None:
        if self.store.has(entry.digest):
            self.progress.step(entry.digest, "exists", entry.size_bytes, entry.size_bytes)
            return
        await download.fetch(self.store, entry, self.places, registries=self.registries, watcher=self.progress)
