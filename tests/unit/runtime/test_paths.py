"""Paths inside a root never lead out of it, whatever links the root holds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import paths


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """An open folder, beside which nothing may appear."""
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH)
    yield fd
    os.close(fd)
    assert [entry.name for entry in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize(
    ("link", "target", "path", "made"),
    [
        ("a", "/b", "/a/c", "b/c"),  # absolute: from the root
        ("a", "../../../b", "/a/c", "b/c"),  # above the root is the root
        ("a", "b/d", "/a/c", "b/d/c"),  # a chain of folders that is not there
        ("a", ".", "/a/c", "c"),
        (None, None, "/x/../y/./z", "y/z"),
    ],
)
def test_missing_folders_are_made_inside(
    root: int, tmp_path: Path, link: str | None, target: str, path: str, made: str
) -> None:
    """Also where a link leads to nothing yet."""
    if link is not None:
        (tmp_path / "root" / link).symlink_to(target)
    os.close(paths.make_folder(root, path))
    assert (tmp_path / "root" / made).is_dir()
    os.close(paths.make_file(root, f"{path}/file"))
    assert (tmp_path / "root" / made / "file").is_file()


def test_file_at_a_dangling_link(root: int, tmp_path: Path) -> None:
    """As in images whose /etc/resolv.conf points into /run."""
    (tmp_path / "root/etc").mkdir()
    (tmp_path / "root/etc/resolv.conf").symlink_to("../run/resolve/stub.conf")
    os.close(paths.make_file(root, "/etc/resolv.conf"))
    assert (tmp_path / "root/run/resolve/stub.conf").is_file()
    assert (tmp_path / "root/etc/resolv.conf").is_symlink()


def test_loops_end(root: int, tmp_path: Path) -> None:
    """A link to itself is an error, soon."""
    (tmp_path / "root/a").symlink_to("b")
    (tmp_path / "root/b").symlink_to("a")
    with pytest.raises(OSError, match=r"symbolic links|too many links"):
        paths.make_folder(root, "/a/c")


def test_links_can_be_refused(root: int, tmp_path: Path) -> None:
    """Where the kernel's own trees go, no link is followed, not even one inside the root."""
    (tmp_path / "root/real").mkdir()
    (tmp_path / "root/proc").symlink_to("real")
    with pytest.raises(OSError, match="openat2"):
        os.close(paths.make_folder(root, "/proc", links=False))


def test_existing_file_is_no_folder(root: int, tmp_path: Path) -> None:
    """A folder is not made through a file."""
    (tmp_path / "root/file").write_text("x")
    with pytest.raises(NotADirectoryError):
        paths.make_folder(root, "/file/below")
