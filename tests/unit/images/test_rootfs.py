"""Images from files: the same entries make the same image, on every machine and in every order."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from images import errors, image, rootfs
from images.store import ImageStore

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES: list[rootfs.Entry] = [
    rootfs.File(path="/www/index.html", content=b"hello"),
    rootfs.File(path="/bin/tool", content=b"\x7fELF", mode=0o4755, uid=1, gid=2),
    rootfs.Symlink(path="/bin/sh", target="tool"),
    rootfs.Directory(path="/tmp", mode=0o1777),
]


def layer(entries: list[rootfs.Entry]) -> bytes:
    sink = io.BytesIO()
    rootfs.write_layer(entries, sink)
    return sink.getvalue()


def test_the_order_of_entries_does_not_matter() -> None:
    assert layer(ENTRIES) == layer(ENTRIES[::-1])


def test_the_digest_of_an_image_is_fixed(tmp_path: Path) -> None:
    """A changed digest here means that every built image of every user changes: do that on purpose only."""
    made = rootfs.build_image(
        ImageStore(tmp_path), ENTRIES, image.Config(cmd=("sh",)), "web", platform=rootfs.Platform(architecture="amd64")
    )
    assert made.digest == "sha256:aef2bd6d64b2f88ec245e85f9695995a8f95bc861ad368f607c508bd07158da4"


def test_parents_are_made_and_fields_kept() -> None:
    with tarfile.open(fileobj=io.BytesIO(layer(ENTRIES))) as tar:
        found = [(info.name, info.type, oct(info.mode), info.uid, info.mtime, info.uname) for info in tar]
    assert found == [
        ("bin", tarfile.DIRTYPE, "0o755", 0, 0, ""),
        ("bin/sh", tarfile.SYMTYPE, "0o777", 0, 0, ""),
        ("bin/tool", tarfile.REGTYPE, "0o4755", 1, 0, ""),
        ("tmp", tarfile.DIRTYPE, "0o1777", 0, 0, ""),
        ("www", tarfile.DIRTYPE, "0o755", 0, 0, ""),
        ("www/index.html", tarfile.REGTYPE, "0o644", 0, 0, ""),
    ]


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([rootfs.Directory(path="a"), rootfs.Directory(path="/a/")], "stands twice"),
        ([rootfs.Directory(path="a/../b")], "without '..'"),
        ([rootfs.Directory(path="/")], "path inside the image"),
        ([rootfs.Symlink(path="a", target="b"), rootfs.Directory(path="a/c")], "which is no folder"),
    ],
)
def test_entries_that_cannot_be_are_refused(entries: list[rootfs.Entry], complaint: str) -> None:
    with pytest.raises(errors.InvalidImage, match=complaint):
        layer(entries)


def test_a_tree_becomes_the_layer_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o755)
    tool = tmp_path / "bin" / "tool"
    tool.write_bytes(b"x" * 2_000_000)
    tool.chmod(0o755)
    (tmp_path / "bin" / "sh").symlink_to("tool")
    sink = io.BytesIO()
    rootfs.tree_to_layer(tmp_path, sink)
    assert sink.getvalue() == layer(
        [
            rootfs.File(path="bin/tool", content=b"x" * 2_000_000, mode=0o755),
            rootfs.Symlink(path="bin/sh", target="tool"),
        ]
    )
