"""COPY and ADD: what arrives, how it looks, what is refused. Names and forms are compared with buildah's elsewhere."""

from __future__ import annotations

import bz2
import hashlib
import http.server
import io
import lzma
import os
import stat
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from images import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.building import Bench

pytestmark = pytest.mark.root
FROM = "FROM localhost/base\n"
CONTENT = b"from afar\n"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


seen: list[dict[str, str]] = []
"""The headers that the server got."""


@pytest.fixture
def address() -> Iterator[str]:
    """A server of this test's own: /f is a file, /moved leads there, everything else is missing."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/f.txt")
                self.end_headers()
            elif self.path.startswith("/to/"):
                self.send_response(307)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
            elif self.path.startswith("/f.txt"):
                self.send_response(200)
                self.send_header("Content-Length", str(len(CONTENT)))
                self.send_header("Last-Modified", "Sun, 13 Sep 2020 12:26:40 GMT")
                self.end_headers()
                self.wfile.write(CONTENT)
            else:
                self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Nothing: the test tells."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_is_fetched_with_its_time_and_checked(bench: Bench, address: str) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    image = bench.build(f"{FROM}ADD {address}/f.txt /d/\nADD --checksum=sha256:{digest} {address}/moved /g\n")
    tree = bench.tree(image)
    assert bench.read(image, "/d/f.txt") == bench.read(image, "/g") == CONTENT.decode()
    assert (tree["d/f.txt"].mode, tree["d/f.txt"].uid) == (0o600, 0)
    bench.build(f"{FROM}ADD {address}/f.txt /d/\n")
    assert bench.last.made == []
    seen.clear()
    pinned = f"{FROM}ADD --checksum=sha256:{digest} {address}/f.txt /g\n"
    assert bench.build(pinned).digest == bench.build(pinned).digest
    assert len(seen) == 1, "what is pinned and known is not fetched"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("ADD {}/none /f", "the server answers 404"),
        ("ADD {}/ /d/", "holds no file name"),
        (f"ADD --checksum=sha256:{'0' * 64} {{}}/f.txt /f", "not that of --checksum"),
        ("ADD http://127.0.0.1:1/x /f", "cannot be fetched"),
        ("ADD http://[x/y /f", "is no address"),
        ("ADD http:///x /f", "cannot be fetched"),
        ("ADD {}/to/file:///etc/passwd /f", "leads to 'file:///etc/passwd', which is no address of a web server"),
        ("ADD {}/to/http://h:port/ /f", "leads to 'http://h:port/', which is no address"),
        ("ADD {0}/to/{0}/to/{0}/to/{0}/to/{0}/to/{0}/to/{0}/f.txt /f", "leads to more than 5 addresses"),
    ],
)
def test_what_cannot_be_fetched_is_told_with_its_place(bench: Bench, address: str, step: str, message: str) -> None:
    with pytest.raises(errors.ImageError, match=f"^Dockerfile:2: ADD: .*{message}"):
        bench.build(FROM + step.format(address) + "\n")


def test_no_passwords_of_a_person_go_along(
    bench: Bench, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes a Dockerfile chooses the server, and may have it lead to another one."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cret\ndefault login me password s3cret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    seen.clear()
    bench.build(f"{FROM}ADD {address}/to/{address}/f.txt /d\n")
    assert len(seen) == 2
    assert not [name for headers in seen for name in headers if name.lower() in {"authorization", "cookie"}]


@pytest.mark.parametrize(
    ("chmod", "before", "after"),
    [("u=rwX,go=rX", 0o2755, 0o2755), ("u=g,g=o", 0o754, 0o544), ("a-x", 0o755, 0o644), ("0700", 0o755, 0o700)],
)
def test_changes_of_modes_are_those_of_chmod_for_folders_too(bench: Bench, chmod: str, before: int, after: int) -> None:
    folder = bench.context({"Dockerfile": f"{FROM}COPY --chmod={chmod} d /d\n", "d/inner/f": ""})
    (folder / "d/inner").chmod(before)
    theirs = folder.parent / "theirs"
    theirs.mkdir()
    theirs.chmod(before)
    subprocess.run(["chmod", chmod, str(theirs)], check=True)
    assert bench.tree(bench.build(folder))["d/inner"].mode == after
    if not chmod.isdecimal():
        assert stat.S_IMODE(theirs.stat().st_mode) == after, "the judge"


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_an_archive_in_several_streams_is_read_to_its_end(bench: Bench, compress: Callable[[bytes], bytes]) -> None:
    """As pbzip2 and pixz write it; the first ends where a tar may end."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        for name in ("a", "b", "c"):
            info = tarfile.TarInfo(name)
            info.size = 512
            file.addfile(info, io.BytesIO(bytes(512)))
    tar = sink.getvalue()
    whole = compress(tar[:1024]) + compress(b"") + bytes(8) + compress(tar[1024:])
    assert {"a", "b", "c"} <= bench.tree(bench.build("FROM scratch\nADD a.tar /\n", {"a.tar": whole})).keys()
    cut, garbage = whole[:-20], whole + b"garbage"
    for damaged, reason in ((cut, "cut off"), (garbage, "")):
        with pytest.raises(
            errors.InvalidImage, match=f"Dockerfile:2: ADD: .*a.tar: cannot be decompressed: .*{reason}"
        ):
            bench.build("FROM scratch\nADD a.tar /\n", {"a.tar": damaged})


def test_links_between_files_and_attributes_arrive(bench: Bench) -> None:
    context = bench.context(
        {"Dockerfile": f"FROM localhost/base AS a\nCOPY d /d\n{FROM}COPY --from=a /d /e\n", "d/f": "x"}
    )
    os.link(context / "d/f", context / "d/g")
    os.mkfifo(context / "d/p", 0o600)
    (context / "d/f").chmod(0o4711)
    os.setxattr(context / "d/f", "security.capability", CAPABILITY)
    os.setxattr(context / "d/f", "user.origin", b"https://example.org")
    image = bench.build(context)
    with bench.mounted(image) as root:
        first, second = (Path(f"/proc/self/fd/{root}/e/{name}").stat() for name in "fg")
    assert (first.st_ino, first.st_nlink) == (second.st_ino, 2)
    found = bench.tree(image)["e/f"]
    assert (found.mode, dict(found.xattrs)) == (0o4711, {"security.capability": CAPABILITY}), "notes stay behind"
    assert bench.tree(image)["e/p"].kind == "p"


def test_folders_are_merged_and_what_is_in_the_way_is_told(bench: Bench) -> None:
    image = bench.build(f"{FROM}RUN mkdir -m 700 /d && touch /d/old /d/f\nCOPY d /d\n", {"d/f": "new", "d/s/g": ""})
    tree = bench.tree(image)
    assert {"d/old", "d/f", "d/s/g"} <= tree.keys()
    assert tree["d"].mode == 0o700, "the target itself is not described anew"
    with pytest.raises(errors.InvalidImage, match=r"COPY: .*/d/f: a folder is there"):
        bench.build(f"{FROM}RUN mkdir -p /d/f\nCOPY d /d\n", {"d/f": ""})
    with pytest.raises(errors.InvalidImage, match=r"COPY: .*/d/s: a file is there"):
        bench.build(f"{FROM}RUN mkdir /d && touch /d/s\nCOPY d /d\n", {"d/s/g": ""})


def test_several_files_need_a_folder_for_a_target(bench: Bench) -> None:
    with pytest.raises(errors.InvalidImage, match=r"Dockerfile:2: COPY: .*2 sources .* end with a slash"):
        bench.build(f"{FROM}COPY f* /d\n", {"f1": "", "f2": ""})
    image = bench.build(f"{FROM}COPY f* /d/\n", {"f1": "", "f2": ""})
    assert {"d/f1", "d/f2"} <= bench.tree(image).keys()


@pytest.mark.parametrize(
    "step",
    ["COPY id_rsa /", "COPY id_* /x/", "COPY sub/id_rsa /", "RUN --mount=type=bind,source=id_rsa,target=/k cp /k /"],
)
@pytest.mark.parametrize("rules", ["*id_rsa\n", "*\n!**/*.go\n"])
def test_what_is_ignored_cannot_be_named(bench: Bench, step: str, rules: str) -> None:
    files = {
        "id_rsa": "secret",
        "sub/id_rsa": "secret",
        "sub/x.go": "",
        ".dockerignore": rules.replace("*id", "**/*id"),
    }
    with pytest.raises(errors.NotFound, match=r"(COPY|RUN): .*no file '.*id_.*'; \.dockerignore excludes it"):
        bench.build(f"{FROM}{step}\n", files)


def test_a_large_file_with_holes_arrives_whole(bench: Bench) -> None:
    context = bench.context({"Dockerfile": "FROM scratch\nCOPY f /f\n"})
    with (context / "f").open("wb") as file:
        file.seek(30_000_000)
        file.write(b"end")
    image = bench.build(context)
    assert bench.tree(image)["f"].content == hashlib.sha256(bytes(30_000_000) + b"end").hexdigest()


def test_owners_of_an_archive_are_kept_unless_told_otherwise(bench: Bench) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:bz2") as file:
        info = tarfile.TarInfo("a/f")
        info.uid, info.gid, info.mode = 1234, 4321, 0o640
        file.addfile(info)
    image = bench.build(f"{FROM}ADD a.tar /one/\nADD --chown=7:8 a.tar /two/\n", {"a.tar": sink.getvalue()})
    tree = bench.tree(image)
    assert (tree["one/a/f"].uid, tree["one/a/f"].gid, tree["one/a/f"].mode) == (1234, 4321, 0o640)
    assert (tree["two/a/f"].uid, tree["two/a/f"].gid) == (7, 8)
