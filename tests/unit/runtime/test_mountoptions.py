"""The options of mounts: every word of the other runtimes is known, or refused by name."""

import contextlib

import pytest

from runtime import errors, mountoptions, syscalls
from runtime.mountoptions import MountOptions

PLAIN_WORDS = """
    async atime bind defaults dev diratime dirsync exec lazytime loud mand noatime nodev nodiratime noexec noiversion
    iversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private rbind relatime remount ro rw shared
    silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap copy-symlink src-nofollow
    dest-nofollow acl noacl
"""
RECURSIVE_WORDS = """
    ratime rdev rdiratime rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow
    rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable
"""


def read(*words: str, kind: str) -> MountOptions | str:
    """What the words amount to, or why not."""
    try:
        return mountoptions.parse(words, kind=kind, path="mounts[0]")
    except errors.InvalidSpec as error:
        return error.message


@pytest.mark.parametrize("word", (PLAIN_WORDS + RECURSIVE_WORDS).split())
def test_every_word_is_known_or_refused(word: str) -> None:
    """For a file system and for a bind mount, each word makes a difference or is refused by name."""
    for kind, other in (("tmpfs", "nodev"), ("bind", "noexec")):
        found = read(other, word, kind=kind)
        if isinstance(found, str):
            assert found.startswith(f"mounts[0].options: {word!r} is "), found
        elif word not in {"defaults", "bind", other}:  # which say what is the case already
            assert found != read(other, kind=kind)


def test_mount_options() -> None:
    """A later word wins; a leading r is recursive; the rest is the file system's."""
    found = mountoptions.parse(("ro", "nosuid", "rw", "rro", "size=1m", "noatime"), kind="tmpfs", path="m")
    assert found.add == syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOATIME
    assert found.remove & syscalls.MOUNT_ATTR_RDONLY
    assert found.add_recursive == syscalls.MOUNT_ATTR_RDONLY
    assert found.data == ("size=1m",)
    bound = mountoptions.parse(("rbind", "rslave"), kind="none", path="m")
    assert (bound.bind, bound.recursive_bind) == (True, True)
    assert (bound.propagation, bound.propagation_recursive) == (syscalls.MS_SLAVE, True)


def test_known_words_are_known() -> None:
    """What `orchrun features` tells is accepted in some mount."""
    for word in mountoptions.known_words():
        accepted = []
        for kind in ("tmpfs", "bind"):
            with contextlib.suppress(errors.InvalidSpec):
                accepted.append(mountoptions.parse((word,), kind=kind, path="m"))
        assert accepted, word
