"""Debian's dockerd, in namespaces of its own: what it saves loads here, and what we save there, digests and all."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from images import archive, export, image, unpack
from images.store import ImageStore
from tests.support.waiting import until
from tests.unit.images import makers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.slow]

BASE = makers.archive(
    makers.directory("bin"),
    makers.member("bin/web", content=b"#!/bin/sh\n" * 500, mode=0o4755, mtime=1_600_000_000),
    makers.symlink("bin/sh", "web"),
    makers.member("etc/gone"),
)
CHANGE = makers.archive(makers.member("etc/.wh.gone"), makers.member("etc/new", content=b"new", mtime=1_600_000_000))


class Docker:
    """A client of a daemon that has its own folder, network and mounts, and runs nothing."""

    def __init__(self, folder: Path) -> None:
        client = shutil.which("docker")
        assert client, "install Debian's docker.io"
        self._base = [client, "--host", f"unix://{folder}/socket"]

    def call(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self._base, *arguments], input=stdin, capture_output=True, timeout=60, check=False)

    def ok(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = self.call(*arguments, stdin=stdin)
        assert done.returncode == 0, (arguments, done.stdout[-500:], done.stderr)
        return done.stdout

    def told(self, name: str, what: str) -> str:
        return self.ok("image", "inspect", "--format", "{{" + what + "}}", name).decode().strip()


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    folder = tmp_path_factory.mktemp("docker")
    (folder / "daemon.json").write_text("{}")
    inside = (
        f"ip link set lo up; exec dockerd --config-file {folder}/daemon.json --data-root {folder}/data "
        f"--exec-root {folder}/exec --pidfile {folder}/pid --host unix://{folder}/socket "
        f"--bridge none --iptables=false --storage-driver vfs"
    )
    unshare = ["unshare", "--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*unshare, "sh", "-c", inside], stdout=log, stderr=log)
    try:
        made = Docker(folder)
        until(lambda: made.call("version").returncode == 0, what="dockerd answers", timeout_s=60)
        yield made
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)


def saved(store: ImageStore, *images: image.Image) -> bytes:
    packed = io.BytesIO()
    export.export_all(store, images, packed, "docker")
    return packed.getvalue()


@pytest.fixture
def made(store: ImageStore) -> image.Image:
    members = makers.docker_archive(BASE, CHANGE, Cmd=["/bin/web", "-p", "80"], Env=["A=b"], User="5:6")
    return archive.import_archive(store, makers.stream(makers.files(members)), name="host.example:5000/team/web:1")


def test_docker_loads_what_we_save(store: ImageStore, made: image.Image, docker: Docker) -> None:
    assert b"host.example:5000/team/web:1" in docker.ok("load", stdin=saved(store, made))
    assert docker.told("host.example:5000/team/web:1", ".Id") == made.config_digest
    assert docker.told("host.example:5000/team/web:1", "json .RootFS.Layers") == (
        "[" + ",".join(f'"{layer.diff_id}"' for layer in made.layers) + "]"
    )
    assert docker.told("host.example:5000/team/web:1", "json .Config.Cmd") == '["/bin/web","-p","80"]'


def test_docker_loads_several_images_of_one_archive(store: ImageStore, made: image.Image, docker: Docker) -> None:
    other = archive.import_archive(
        store, makers.stream(makers.files(makers.docker_archive(BASE, Cmd=["other"]))), name="other:2"
    )
    told = docker.ok("load", stdin=saved(store, made, other))
    assert b"host.example:5000/team/web:1" in told
    assert b"other:2" in told
    assert docker.told("other:2", ".Id") == other.config_digest


def test_what_docker_saves_comes_back_with_its_digests(
    store: ImageStore, made: image.Image, docker: Docker, tmp_path: Path
) -> None:
    docker.ok("load", stdin=saved(store, made))
    docker.ok("tag", "host.example:5000/team/web:1", "again:3")
    elsewhere = ImageStore(tmp_path / "elsewhere")
    (found,) = archive.import_all(
        elsewhere, makers.Pipe(docker.ok("save", "host.example:5000/team/web:1", "again:3"), piece=1 << 16)
    )
    assert found.names == ("host.example:5000/team/web:1", "docker.io/library/again:3")
    assert found.config_digest == made.config_digest
    assert [layer.digest for layer in found.layers] == [layer.diff_id for layer in made.layers]
    assert found.digest == made.digest, "uncompressed layers and an equal config make an equal manifest"
    assert len(unpack.unpack(elsewhere, found)) == 2


def test_what_docker_imports_and_commits_comes_here_with_its_history(docker: Docker, tmp_path: Path) -> None:
    docker.ok("import", "--change", "CMD /bin/web", "--message", "by hand", "-", "made:1", stdin=BASE)
    elsewhere = ImageStore(tmp_path / "elsewhere")
    found = archive.import_archive(elsewhere, makers.stream(docker.ok("save", "made:1")))
    assert found.config_digest == docker.told("made:1", ".Id")
    assert [step.comment for step in found.history] == ["by hand"]
    assert found.config.created.startswith("20")
    assert found.config.cmd == ("/bin/sh", "-c", "/bin/web")


def test_gzip_layers_load_in_docker(store: ImageStore, made: image.Image, docker: Docker, tmp_path: Path) -> None:
    """An image that was pulled has compressed layers; the archive has them as they are."""
    subprocess.run(
        [
            "skopeo",
            "copy",
            "--insecure-policy",
            "--dest-compress-format=gzip",
            f"oci:{store.root}:{made.names[0]}",
            f"oci:{tmp_path}/gzipped:web:1",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    found = archive.import_archive(store, tmp_path / "gzipped", name="gzipped:1")
    assert [layer.media_type.rpartition("+")[2] for layer in found.layers] == ["gzip", "gzip"]
    docker.ok("load", stdin=saved(store, found))
    assert docker.told("gzipped:1", ".Id") == found.config_digest
