"""COPY, ADD and WORKDIR as tasks: the keys under which a result may be known, and how it is made otherwise.

The rule: a key that costs little is asked for first. What a COPY takes from a stage is known by the stage's layers
before anything is mounted or read, and by its content after that.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from images import errors, scratch
from images.build import (
    cache,
    configuration,
    copying,
    descriptors,
    fetching,
    ignore,
    owners,
    quantities,
    sources,
    tree_writer,
    workshop,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from images.build.instructions import Copy, Workdir
    from images.build.stages import Built
    from images.build.workshop import Layers, Work, Workshop
    from images.image import Layer


class Task(Protocol):
    """A step that may change files."""

    def keys(self) -> Iterator[str]:
        """Keys of the same result, the cheapest first."""
        ...

    def carry_out(self) -> Layer | None:
        """Make the layer, or None when nothing had to be changed. Called after all keys were asked for."""
        ...

    def holds(self) -> bool:
        """Whether the keys say what the layer has in it. A context may change between being looked at and copied."""
        ...

    def close(self) -> None:
        """Let go of what the keys took."""
        ...


class CopyTask:
    """COPY or ADD; its variables are replaced."""

    def __init__(self, shop: Workshop, built: Built, copy: Copy, source: Callable[[str], tuple[Layers, str]]) -> None:
        self._shop = shop
        self._built = built
        self._copy = copy
        self._source = source
        self._stack = contextlib.ExitStack()
        self._order: copying.Order | None = None
        self._content: Sequence[str] = ()

    @property
    def _below(self) -> Layers:
        """The layers that the result depends on: none with `--link`."""
        return () if self._copy.link else self._built.layers

    def keys(self) -> Iterator[str]:
        copy, below = self._copy, workshop.chain_id(self._below)
        # Without --link a name means what the layers below say, which are part of the key already.
        owner = str(self._owner()) if copy.link and copy.chown else copy.chown
        said = (below, copy.sources, self._target, owner, copy.chmod, copy.parents, copy.exclude, copy.is_add)
        more = (copy.heredocs, self._shop.options.epoch_s)
        if copy.checksum and all(map(fetching.is_address, copy.sources)):
            # Whatever is fetched has these bytes, so that what is known need not be fetched.
            yield cache.key("add-pinned", *said, *more, fetching.check_sum(copy.checksum))
        if copy.from_:
            yield cache.key("copy-from", *said, *more, workshop.chain_id(self._source(copy.from_)[0]))
        self._order = self._ordered()
        self._content = copying.fingerprint(self._order)
        yield cache.key("copy", below, owner, self._content, self._shop.options.epoch_s)

    def carry_out(self) -> Layer:
        assert self._order is not None, "keys come first"
        order = replace(self._order, owner=self._owner() if self._copy.chown else None)
        with self._shop.work(self._below) as work:
            with self._target_of(work) as root:
                copying.carry_out(order, root, what=self._what)
            # With --link, too, the layers below are those of the stage: only the files came about without them.
            return self._shop.commit(replace(work, layers=self._built.layers))

    def holds(self) -> bool:
        assert self._order is not None, "keys come first"
        found = (each.tree for each in self._order.sources if isinstance(each, sources.Picked))
        if not any(tree is self._shop.context.tree for tree in found):
            return True
        return copying.fingerprint(self._order) == self._content

    def close(self) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _target_of(self, work: Work) -> Iterator[int]:
        """The root to write to: with --link an empty folder."""
        if not self._copy.link:
            with self._shop.opened(work) as root:
                yield root
            return
        with descriptors.closing(os.open(work.place.upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            yield root

    # What is copied ---------------------------------------------------------------------------------------------------

    @property
    def _what(self) -> str:
        return f"--from={self._copy.from_}" if self._copy.from_ else "the files"

    @property
    def _target(self) -> str:
        written = self._copy.target
        is_folder = written.endswith(("/", "/.", "/..")) or written in {".", ".."}
        path = configuration.workdir(self._built.settings, written)
        return f"{path.rstrip('/')}/" if is_folder else path

    def _ordered(self) -> copying.Order:
        copy = self._copy
        if copy.chmod:
            quantities.mode(copy.chmod)
        found, pivots = self._found()
        return copying.Order(
            sources=tuple(found),
            target=self._target,
            mode=copy.chmod,
            parents=copy.parents,
            pivots=tuple(pivots),
            unpacks=copy.is_add,
        )

    def _found(self) -> tuple[list[copying.Source], list[int]]:
        copy = self._copy
        excludes = (ignore.patterns(copy.exclude, place=str(copy.place)),) if copy.exclude else ()
        found: list[copying.Source] = [
            copying.Written(name=one.name, content=one.content.encode("utf-8", "surrogateescape"))
            for one in copy.heredocs
        ]
        pivots = [0] * len(found)
        for source in copy.sources:
            if copy.is_add and fetching.is_address(source):
                found.append(self._fetched(source))
                pivots.append(0)
                continue
            if copy.checksum:
                raise errors.InvalidDockerfile(f"--checksum is for files that are fetched; {source!r:.100} is not")
            tree = self._shop.tree(*self._source(copy.from_)) if copy.from_ else self._shop.context.tree
            picked = sources.pick(tree, source, excludes)
            found += picked
            pivots += [_pivot(source)] * len(picked)
        return found, pivots

    def _fetched(self, address: str) -> copying.Fetched:
        if self._shop.options.network == "none":
            raise errors.InvalidDockerfile(
                f"{address:.200} cannot be fetched: --network none takes the network from all steps; "
                "fetch it beforehand, and COPY it"
            )
        folder = self._stack.enter_context(scratch.folder(self._shop.store.tmp)).path
        needs_name = self._target.endswith("/")
        return fetching.fetch(
            address,
            folder,
            checksum=self._copy.checksum,
            needs_name=needs_name,
            check=self._shop.check_stopped,
        )

    def _owner(self) -> owners.Owner:
        if owners.is_numeric(self._copy.chown):
            return owners.look_up(self._copy.chown, None)
        with self._shop.work(self._built.layers) as work, self._shop.opened(work) as root:
            return owners.look_up(self._copy.chown, root)


def _pivot(source: str) -> int:
    """How many folders before `/./` are left out with `--parents`: `a/b/./c/d` is c/d at the target."""
    before, pivot, _ = source.partition("/./")
    return len([part for part in before.split("/") if part not in {"", "."}]) if pivot else 0


class WorkdirTask:
    """WORKDIR makes its folder where there is none, for the user who works in it."""

    def __init__(self, shop: Workshop, built: Built, workdir: Workdir) -> None:
        self._shop = shop
        self._built = built
        self._path = configuration.workdir(built.settings, workdir.path)

    def keys(self) -> Iterator[str]:
        chain, user = workshop.chain_id(self._built.layers), self._built.settings.user
        yield cache.key("workdir", chain, self._path, user, self._shop.options.epoch_s)

    def carry_out(self) -> Layer | None:
        with self._shop.work(self._built.layers) as work:
            with self._shop.opened(work) as root:
                writer = tree_writer.TreeWriter(root, what="WORKDIR")
                if writer.is_folder(self._path.strip("/") or "."):
                    return None
                user = self._built.settings.user
                owner = owners.look_up(user, root, what="USER ") if user else owners.Owner()
                writer.folders(self._path, tree_writer.Looks(mode=0o755, uid=owner.uid, gid=owner.gid))
            return self._shop.commit(work)

    def holds(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing was taken."""
