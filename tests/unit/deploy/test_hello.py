"""The demo's images."""

import tarfile
from pathlib import Path

from deploy import hello


def test_an_image_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    """So that its digest is the same, and an import of the same image is no change."""
    for name in ("a.tar", "b.tar"):
        hello.write(tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_the_web_server_is_in_one_image_only(tmp_path: Path) -> None:
    """Both have the applets."""
    hello.write(tmp_path / "hello.tar")
    hello.write(tmp_path / "busybox.tar", plain=True)
    with tarfile.open(tmp_path / "hello.tar") as web, tarfile.open(tmp_path / "busybox.tar") as plain:
        assert set(web.getnames()) - set(plain.getnames()) == {"serve", "www", "www/cgi-bin", "www/cgi-bin/index.cgi"}
        assert plain.getmember("bin/sh").linkname == "busybox"
        assert plain.getmember("tmp").mode == 0o1777
        assert web.getmember("serve").mode == 0o755
