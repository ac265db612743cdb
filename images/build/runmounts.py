"""`RUN --mount`: what a command finds at its mounts, and what of it decides over the step.

Rules. Nothing that a command writes to a mount comes into the layer or goes back to where it came from: what is bound
is a copy, from a tree in which links lead nowhere outside. A cache is a folder of ours, known by the digest of its id.
A secret lies with the state of the containers, belongs to the user it is for, and is no part of any key.
"""

from __future__ import annotations

import contextlib
import os
import secrets as randomness
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images import errors, scratch
from images.build import cache, copying, descriptors, quantities, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from images.build.containers import Containers
    from images.build.instructions import Mount
    from images.build.sources import Tree

_SECRETS = "/run/secrets"
_GUARDED = ["nosuid", "nodev"]
_SHARING = ("shared", "private", "locked")  # of a cache that a step mounts twice, what keeps others out more counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One mount: for the key, and for the container once `Maker` has made it. `target` is absolute."""

    mount: Mount
    target: str
    decides: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Made:
    """What a container is given."""

    mounts: list[dict[str, Any]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)
    is_another: bool = False  # what is bound has changed since the key was made


def prepare(mount: Mount, target: str, tree_of: Callable[[str], Tree]) -> Prepared:
    """What a mount adds to the key of its step; `tree_of` gives the tree that a `from` names, "" being the context."""
    decides = [mount.type, target, mount.id, mount.size, mount.mode, mount.uid, mount.gid, mount.env]
    decides += [str(mount.writable), mount.source]
    if mount.type == "bind":
        decides += [f"{one.path} {sources.fingerprint(one)}" for one in _picked(mount, tree_of)]
    return Prepared(mount=mount, target=target, decides=tuple(decides))


def _picked(mount: Mount, tree_of: Callable[[str], Tree]) -> list[sources.Picked]:
    """The one file or folder that a mount shows. A pattern is a name here."""
    escaped = mount.source.replace("\\", r"\\").replace("*", r"\*").replace("?", r"\?").replace("[", r"\[")
    return sources.pick(tree_of(mount.from_), escaped)


def _cache_name(one: Prepared) -> str:
    return one.mount.id or one.target


class Maker:
    """Makes the mounts of one command; what it made is gone when the stack ends, but for caches."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        *,
        store_cache: cache.Cache,
        containers: Containers,
        tree_of: Callable[[str], Tree],
        secrets: Mapping[str, bytes],
        check: Callable[[], None],
    ) -> None:
        self._stack = stack
        self._cache = store_cache
        self._containers = containers
        self._tree_of = tree_of
        self._secrets = secrets
        self._check = check

    def make(self, prepared: tuple[Prepared, ...]) -> Made:
        made = Made()
        caches = self._locked(prepared)
        for one in prepared:
            match one.mount.type:
                case "bind":
                    self._bind(one, made)
                case "cache":
                    self._cached(one, caches[_cache_name(one)], made)
                case "tmpfs":
                    self._tmpfs(one, made)
                case "secret":
                    self._secret(one, made)
                case kind:
                    raise errors.InvalidDockerfile(f"--mount=type={kind} is not known")
        return made

    def text(self, target: str, content: str, made: Made, *, mode: int = 0o644) -> None:
        """A small file that a container finds, read-only."""
        path = self._file(content.encode(), mode=mode)
        self._add(made, target, path, "ro")

    def _bind(self, one: Prepared, made: Made) -> None:
        folder = self._stack.enter_context(scratch.folder(self._cache.store.tmp)).path
        picked = _picked(one.mount, self._tree_of)
        root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        with descriptors.closing(root):
            copying.carry_out(
                copying.Order(sources=tuple(picked), target="/it", keeps_top=True), root, what="--mount=type=bind"
            )
        if not one.mount.from_:
            made.is_another |= prepare(one.mount, one.target, self._tree_of) != one
        self._add(made, one.target, folder / "it", "rw" if one.mount.writable else "ro", idmapped=True)

    def _locked(self, prepared: tuple[Prepared, ...]) -> dict[str, Path]:
        """The folders of all caches of the step by their names.

        Each is locked once, and all in the order of their names: neither a step and itself nor two steps wait for each
        other. What they begin with is looked for before, since it may be in a stage that wants the same caches.
        """
        wanted: dict[str, list[Mount]] = {}
        for one in prepared:
            if one.mount.type == "cache":
                wanted.setdefault(_cache_name(one), []).append(one.mount)
        fills = {name: self._filling(mounts[0]) for name, mounts in wanted.items()}
        found: dict[str, Path] = {}
        for name, mounts in sorted(wanted.items()):
            sharing = max((mount.sharing for mount in mounts), key=_SHARING.index)
            folder = self._cache.mount(name, sharing=sharing, fill=fills[name], check=self._check)
            found[name] = self._stack.enter_context(folder)
        return found

    def _filling(self, mount: Mount) -> Callable[[Path], None]:
        tree = self._tree_of(mount.from_) if mount.from_ else None

        def fill(folder: Path) -> None:
            if tree is not None:
                with descriptors.closing(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
                    order = copying.Order(sources=tuple(_picked(mount, lambda _: tree)), target="/")
                    copying.carry_out(order, root, what="--mount=type=cache")
            folder.chmod(quantities.mode(mount.mode or "0755").of(0, is_folder=True))
            os.chown(folder, int(mount.uid or 0), int(mount.gid or 0))

        return fill

    def _cached(self, one: Prepared, folder: Path, made: Made) -> None:
        self._add(made, one.target, folder, "rw" if one.mount.writable else "ro", idmapped=True)

    def _tmpfs(self, one: Prepared, made: Made) -> None:
        options = [*_GUARDED, "mode=1777"]
        if one.mount.size:
            options.append(f"size={quantities.size_bytes(one.mount.size)}")
        made.mounts.append({"destination": one.target, "type": "tmpfs", "source": "tmpfs", "options": options})
        made.targets.append(one.target)

    def _secret(self, one: Prepared, made: Made) -> None:
        mount = one.mount
        name = mount.id or mount.env or mount.target.rpartition("/")[2]
        content = self._secrets.get(name)
        if content is None:
            if mount.required:
                raise errors.NotFound(
                    f"secret {name!r:.100} is required; give it with --secret id={name:.100},src=FILE"
                )
            return
        if mount.env:
            made.env[mount.env] = content.decode("utf-8", "surrogateescape")
        if mount.target or not mount.env:
            owner = (int(mount.uid or 0), int(mount.gid or 0))
            path = self._file(content, mode=quantities.mode(mount.mode or "0400").of(0, is_folder=False), owner=owner)
            self._add(made, one.target if mount.target else f"{_SECRETS}/{name.rpartition('/')[2]}", path, "ro")

    def _file(self, content: bytes, *, mode: int, owner: tuple[int, int] = (0, 0)) -> Path:
        path = self._containers.files / randomness.token_hex(8)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._stack.callback(path.unlink, missing_ok=True)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        self._containers.own(path, uid=owner[0], gid=owner[1])
        path.chmod(mode)
        return path

    def _add(self, made: Made, target: str, source: Path, access: str, *, idmapped: bool = False) -> None:
        options = ["bind", access, *_GUARDED]
        if idmapped and self._containers.first_id:
            options.append("idmap")
        made.mounts.append({"destination": target, "type": "bind", "source": str(source), "options": options})
        made.targets.append(target)
