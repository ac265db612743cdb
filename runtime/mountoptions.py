"""The words of a mount's `options` (runtime-spec, config-linux "Linux mount options"), as what the kernel is told.

A word is an attribute to set or clear, its recursive form (`rro`), a propagation, one of the runtimes' own, or else an
option of the file system, which alone knows whether it is right; those that any file system takes are among them
(fsconfig(2), FSCONFIG_SET_FLAG). A bind mount shares the file system of its source, so there such a word is refused.
"""

from typing import Final

from runtime import errors, syscalls
from runtime.values import frozen

_ATTRIBUTES: Final[dict[str, tuple[int, int]]] = {
    "ro": (syscalls.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, syscalls.MOUNT_ATTR_RDONLY),
    "nosuid": (syscalls.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, syscalls.MOUNT_ATTR_NOSUID),
    "nodev": (syscalls.MOUNT_ATTR_NODEV, 0),
    "dev": (0, syscalls.MOUNT_ATTR_NODEV),
    "noexec": (syscalls.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, syscalls.MOUNT_ATTR_NOEXEC),
    "noatime": (syscalls.MOUNT_ATTR_NOATIME, syscalls.MOUNT_ATTR_ATIME),
    "relatime": (0, syscalls.MOUNT_ATTR_ATIME),
    "norelatime": (0, syscalls.MOUNT_ATTR_ATIME),
    "atime": (0, syscalls.MOUNT_ATTR_ATIME),
    "strictatime": (syscalls.MOUNT_ATTR_STRICTATIME, syscalls.MOUNT_ATTR_ATIME),
    "nostrictatime": (0, syscalls.MOUNT_ATTR_ATIME),
    "nodiratime": (syscalls.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, syscalls.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (syscalls.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, syscalls.MOUNT_ATTR_NOSYMFOLLOW),
}
_PROPAGATION: Final = {
    "private": syscalls.MS_PRIVATE,
    "shared": syscalls.MS_SHARED,
    "slave": syscalls.MS_SLAVE,
    "unbindable": syscalls.MS_UNBINDABLE,
}
_SUPERBLOCK: Final = frozenset({"sync", "async", "dirsync", "lazytime", "nolazytime", "nomand"})
_OWN: Final = frozenset("bind rbind idmap ridmap defaults tmpcopyup copy-symlink src-nofollow dest-nofollow".split())
_REFUSED: Final = {
    "remount": "a mount in a configuration is always a new one; give the options to that",
    "mand": "mandatory locks are gone since Linux 5.15",
    "iversion": "fsconfig(2) has no such flag; use the file system's own word",
    "noiversion": "fsconfig(2) has no such flag; use the file system's own word",
    "silent": "fsconfig(2) has no such flag, and the kernel's words go into the error",
    "loud": "fsconfig(2) has no such flag, and the kernel's words go into the error",
}


@frozen
class MountOptions:
    """What the options of one mount amount to."""

    bind: bool = False
    recursive_bind: bool = False
    add: int = 0
    remove: int = 0
    add_recursive: int = 0
    remove_recursive: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    idmap: bool = False
    idmap_recursive: bool = False
    tmpcopyup: bool = False
    copy_symlink: bool = False
    source_nofollow: bool = False
    target_nofollow: bool = False
    data: tuple[str, ...] = ()


def parse(words: tuple[str, ...], *, kind: str, path: str) -> MountOptions:
    """Sort the words; a later word wins over an earlier one, as with mount(8)."""
    bind = kind in {"bind", "rbind"} or "bind" in words or "rbind" in words
    recursive_bind = kind == "rbind" or "rbind" in words
    own, below = [0, 0], [0, 0]
    propagation, propagation_recursive, data = 0, False, []
    for word in words:
        stem = word[1:] if word.startswith("r") else ""
        if word in _OWN:
            _check_own(word, bind=bind, kind=kind, path=path)
            continue
        if word in _REFUSED:
            raise errors.InvalidSpec(f"{path}.options: {word!r} is not supported: {_REFUSED[word]}")
        if word in _ATTRIBUTES:
            _apply(own, word)
        elif stem in _ATTRIBUTES:
            _apply(below, stem)
        elif word in _PROPAGATION or stem in _PROPAGATION:
            propagation = _PROPAGATION.get(word) or _PROPAGATION[stem]
            propagation_recursive = word not in _PROPAGATION
        elif bind:
            why = "; it is for the file system, which is the source's" if word in _SUPERBLOCK else ""
            raise errors.InvalidSpec(f"{path}.options: {word!r} is not an option of a bind mount{why}")
        else:
            data.append(word)
    return MountOptions(
        bind=bind,
        recursive_bind=recursive_bind,
        add=own[0],
        remove=own[1],
        add_recursive=below[0],
        remove_recursive=below[1],
        propagation=propagation,
        propagation_recursive=propagation_recursive,
        idmap="idmap" in words or "ridmap" in words,
        idmap_recursive="ridmap" in words,
        tmpcopyup="tmpcopyup" in words,
        copy_symlink="copy-symlink" in words,
        source_nofollow="src-nofollow" in words,
        target_nofollow="dest-nofollow" in words,
        data=tuple(data),
    )


def _check_own(word: str, *, bind: bool, kind: str, path: str) -> None:
    if word in {"copy-symlink", "src-nofollow"} and not bind:
        raise errors.InvalidSpec(f"{path}.options: {word!r} is for a bind mount")
    if word == "tmpcopyup" and (bind or kind != "tmpfs"):
        raise errors.InvalidSpec(f"{path}.options: 'tmpcopyup' is for a tmpfs")


def _apply(attributes: list[int], word: str) -> None:
    add, remove = _ATTRIBUTES[word]
    attributes[0] = attributes[0] & ~remove | add
    attributes[1] = attributes[1] & ~add | remove


def propagation_flags(word: str, path: str) -> tuple[int, bool]:
    """The flag of a propagation word such as "rslave", and whether it is recursive."""
    stem = word.removeprefix("r")
    if stem not in _PROPAGATION:
        known = ", ".join(sorted(_PROPAGATION))
        raise errors.InvalidSpec(f"{path}: {word!r} is not a propagation; use one of {known}, or with a leading r")
    return _PROPAGATION[stem], stem != word


def known_words() -> tuple[str, ...]:
    """Every word that is understood here, for `orchrun features`; a file system may know others of its own."""
    tables = (*_ATTRIBUTES, *_PROPAGATION)
    return (*_OWN, *_SUPERBLOCK, *tables, *(f"r{word}" for word in tables))
