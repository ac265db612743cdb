"""Sources of COPY: what a pattern finds, what is left out, and what a fingerprint tells apart."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from images import errors, scratch
from images.build import ignore, sources

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.txt", "d/c.txt", "d/e/f", "z*"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "tree"


@pytest.fixture
def tree(folder: Path) -> Iterator[sources.Tree]:
    with sources.opened(str(folder), lambda fd: sources.Tree(fd=fd, title="tree")) as found:
        yield found


def ignoring(tree: sources.Tree, *patterns: str) -> sources.Tree:
    rules = ignore.patterns(patterns, place="test")
    return sources.Tree(fd=tree.fd, title="tree", keeps_owners=False, ignored=rules)


def walked(tree: sources.Tree, pattern: str = "") -> list[str]:
    return [entry.path for picked in sources.pick(tree, pattern) for entry in sources.walk(picked)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("[a-b].txt", ["a.txt", "b.txt"]),
        ("d/*", ["d/c.txt", "d/e"]),
        ("*/c.txt", ["d/c.txt"]),
        ("/../../a.txt", ["a.txt"]),
        ("d/../b.txt", ["b.txt"]),
        ("./d/", ["d"]),
        ("z\\*", ["z*"]),
        (".", [""]),
    ],
)
def test_patterns_find_below_the_root(tree: sources.Tree, pattern: str, expected: list[str]) -> None:
    assert [picked.path for picked in sources.pick(tree, pattern)] == expected


@pytest.mark.parametrize("pattern", ["none", "*.md", "a.txt/x", "loop", "up", "loop/x"])
def test_what_is_not_there_is_told(tree: sources.Tree, folder: Path, pattern: str) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to("../../../../../../../../etc/passwd")
    with pytest.raises(errors.NotFound, match=r"^tree: no file "):
        sources.pick(tree, pattern)


def test_links_are_followed_inside_the_root_and_kept_below_what_was_picked(tree: sources.Tree, folder: Path) -> None:
    (folder / "link").symlink_to("/d")
    (folder / "d/inner").symlink_to("/a.txt")
    (picked,) = sources.pick(tree, "link")
    assert (picked.path, picked.name, picked.real) == ("link", "link", "d")
    assert [entry.path for entry in sources.walk(picked)] == ["", "c.txt", "e", "e/f", "inner"]


def test_what_is_ignored_does_not_exist(tree: sources.Tree, folder: Path) -> None:
    assert walked(ignoring(tree, "*.txt", "d/e")) == ["", "d", "d/c.txt", "z*"]
    assert walked(ignoring(tree, "d", "!d/e/f")) == ["", "a.txt", "b.txt", "d", "d/e", "d/e/f", "z*"]
    assert walked(ignoring(tree, "*", "!b.txt")) == ["", "b.txt"]
    (folder / "way").symlink_to("d")
    with pytest.raises(errors.NotFound, match=r"excludes it"):
        sources.pick(ignoring(tree, "d"), "way")


@pytest.mark.parametrize("pattern", ["a.txt", "*.txt", "d/c.txt", "way", "d/*.txt"])
@pytest.mark.parametrize("exception", ["!**/*.go", "!*/*/f", "!d/e/f"])
def test_what_is_ignored_is_not_found_by_its_name(
    tree: sources.Tree, folder: Path, pattern: str, exception: str
) -> None:
    """Also where a `!` might take something back in below a folder: a file has nothing below it."""
    (folder / "way").symlink_to("a.txt")
    with pytest.raises(errors.NotFound, match=r"excludes it"):
        sources.pick(ignoring(tree, "*", exception), pattern)
    excludes = [ignore.patterns(["**/*.txt", exception], place="test")]
    with pytest.raises(errors.NotFound):
        sources.pick(tree, pattern, excludes)


def test_a_fingerprint_tells_what_a_copy_would_hold(tree: sources.Tree, folder: Path) -> None:
    def fingerprint() -> str:
        (picked,) = sources.pick(tree, "d")
        return sources.fingerprint(picked)

    seen = {fingerprint()}
    for change in (
        lambda: (folder / "d/c.txt").write_text("C.txt"),
        lambda: (folder / "d/c.txt").chmod(0o600),
        lambda: (folder / "d/c.txt").rename(folder / "d/g"),
        (folder / "d/h").mkdir,
        lambda: (folder / "d/l").symlink_to("x"),
        lambda: ((folder / "d/l").unlink(), (folder / "d/l").symlink_to("y")),
        lambda: os.link(folder / "d/g", folder / "d/h/i"),
        lambda: ((folder / "d/h/i").unlink(), (folder / "d/h/i").write_text("C.txt"), (folder / "d/h/i").chmod(0o600)),
        functools.partial(os.mkfifo, folder / "d/p"),
    ):
        change()
        found = fingerprint()
        assert found not in seen, change
        seen.add(found)
    os.utime(folder / "d/g", (1, 1))
    assert fingerprint() in seen, "times are none of it"


def test_attributes_of_folders_are_told_apart(tree: sources.Tree, folder: Path) -> None:
    """They are copied, so they decide."""

    def fingerprint(found: sources.Tree) -> str:
        (picked,) = sources.pick(found, "d")
        return sources.fingerprint(picked)

    before = [fingerprint(each) for each in (tree, ignoring(tree))]
    try:
        os.setxattr(folder / "d/e", "user.origin", b"somewhere")
    except OSError as error:
        pytest.skip(f"this file system keeps no attributes: {error.strerror}")
    assert fingerprint(tree) != before[0]
    assert fingerprint(ignoring(tree)) == before[1], "what a person's files are not copied with"


def test_folders_deeper_than_an_image_can_hold_are_refused(tree: sources.Tree, folder: Path) -> None:
    subprocess.run(["mkdir", "-p", "/".join("d" * 1500)], cwd=folder, check=True)
    try:
        for pattern in (".", "d"):
            with pytest.raises(errors.InvalidImage, match="too long or too deep for an image"):
                sources.fingerprint(sources.pick(tree, pattern)[0])
    finally:
        scratch.remove(folder / "d")


def test_notes_of_other_programs_stay_with_a_person(tree: sources.Tree, folder: Path) -> None:
    try:
        os.setxattr(folder / "a.txt", "user.origin", b"somewhere")
    except OSError as error:
        pytest.skip(f"this file system keeps no attributes: {error.strerror}")
    for one, expected in ((tree, {"user.origin": b"somewhere"}), (ignoring(tree), {})):
        (picked,) = sources.pick(one, "a.txt")
        for entry in sources.walk(picked):
            fd = entry.open()
            assert entry.xattrs(fd) == expected
            os.close(fd)
