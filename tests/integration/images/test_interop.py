"""The real tools of Debian: what skopeo, umoci and podman write loads here, and what we write loads there."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from images import archive, compress, export, flatten, image, recompress, rootfs, unpack
from images import digest as digests
from images.store import ImageStore
from tests.unit.images import makers

pytestmark = pytest.mark.root

Load = Callable[..., image.Image]
BASE = makers.archive(
    makers.directory("bin"),
    makers.member("bin/web", content=b"#!/bin/sh\n" * 500, mode=0o4755, mtime=1_600_000_000),
    makers.symlink("bin/sh", "web"),
    makers.hardlink("bin/hard", "bin/web"),
    makers.member("etc/" + "long" * 40, content=b"long name", uid=1000, gid=70000, mtime=1_600_000_000),
    makers.member("etc/gone"),
)
CHANGE = makers.archive(makers.member("etc/.wh.gone"), makers.member("etc/new", content=b"new", mtime=1_600_000_000))


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def skopeo(source: str, target: str, *options: str) -> None:
    run("skopeo", "copy", "--insecure-policy", *options, source, target)


def diff_ids(made: image.Image) -> list[str]:
    return [layer.diff_id for layer in made.layers]


@pytest.fixture
def made(load: Load) -> image.Image:
    return load(BASE, CHANGE, name="host.example:5000/team/web:1")


@pytest.fixture
def elsewhere(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "elsewhere")


@pytest.fixture
def exported(store: ImageStore, made: image.Image, tmp_path: Path) -> dict[str, Path]:
    paths = {}
    for form in ("oci", "docker"):
        paths[form] = tmp_path / f"{form}.tar"
        with paths[form].open("wb") as file:
            export.export_archive(store, made, file, form)  # type: ignore[arg-type]
    return paths


@pytest.fixture
def podman() -> Iterator[Callable[..., str]]:
    """podman on storage of its own; its folder's path may have 50 characters, so `tmp_path` is too long."""
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        common = ("podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs")
        yield lambda *command: run(*common, *command)


# What we write


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_skopeo_reads_our_archives(made: image.Image, exported: dict[str, Path], form: str) -> None:
    found = json.loads(run("skopeo", "inspect", f"{form}-archive:{exported[form]}"))
    assert found["Layers"] == [layer.digest for layer in made.layers]
    if form == "oci":
        assert found["Digest"] == made.digest
    raw = run("skopeo", "inspect", "--config", "--raw", f"{form}-archive:{exported[form]}")
    assert digests.of_bytes(raw.encode()) == made.config_digest


def test_the_store_itself_is_a_layout_that_skopeo_reads(store: ImageStore, made: image.Image) -> None:
    found = json.loads(run("skopeo", "inspect", f"oci:{store.root}:{made.names[0]}"))
    assert found["Digest"] == made.digest


def test_umoci_unpacks_our_export_to_the_tree_that_we_unpack(
    store: ImageStore, made: image.Image, exported: dict[str, Path], tmp_path: Path
) -> None:
    skopeo(f"oci-archive:{exported['oci']}", f"oci:{tmp_path}/layout:web")
    run("umoci", "raw", "unpack", "--image", f"{tmp_path}/layout:web", tmp_path / "umoci")
    merged = tmp_path / "merged"
    merged.mkdir()
    lower = ":".join(str(folder) for folder in reversed(unpack.unpack(store, made)))
    run("mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", merged)
    try:
        assert describe(merged) == describe(tmp_path / "umoci")
    finally:
        run("umount", merged)


def describe(folder: Path) -> dict[str, Any]:
    """Every file with what the archive says of it; folders that no entry lists have no time of their own."""
    found = {}
    for path in folder.rglob("*"):
        info = path.lstat()
        owner = (stat.filemode(info.st_mode), info.st_uid, info.st_gid)
        if path.is_symlink():
            found[str(path.relative_to(folder))] = (owner, str(path.readlink()))
        elif path.is_file():
            found[str(path.relative_to(folder))] = (owner, info.st_mtime, info.st_nlink, path.read_bytes())
        else:
            found[str(path.relative_to(folder))] = (owner,)
    return found


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_podman_loads_our_archives(
    made: image.Image, exported: dict[str, Path], podman: Callable[..., str], form: str
) -> None:
    assert "host.example:5000/team/web:1" in podman("load", "-i", exported[form])
    found = json.loads(podman("image", "inspect", "host.example:5000/team/web:1"))[0]
    assert found["RootFS"]["Layers"] == diff_ids(made)
    assert "sha256:" + found["Id"] == made.config_digest


# What they write


def test_a_docker_archive_by_skopeo_comes_back_with_its_digests(
    made: image.Image, exported: dict[str, Path], elsewhere: ImageStore, tmp_path: Path
) -> None:
    skopeo(f"docker-archive:{exported['docker']}", f"docker-archive:{tmp_path}/theirs.tar:other/web:2")
    found = archive.import_archive(elsewhere, tmp_path / "theirs.tar")
    assert found.names == ("docker.io/other/web:2",)
    assert found.config_digest == made.config_digest
    assert found.layers == made.layers
    assert len(unpack.unpack(elsewhere, found)) == 2


@pytest.mark.parametrize("target", ["oci-archive:{}/theirs.tar", "oci:{}/theirs.tar"])
def test_an_oci_archive_or_layout_by_skopeo_comes_back_with_its_digests(
    made: image.Image, exported: dict[str, Path], elsewhere: ImageStore, tmp_path: Path, target: str
) -> None:
    skopeo(f"oci-archive:{exported['oci']}", target.format(tmp_path) + ":docker.io/library/web:3", "--preserve-digests")
    found = archive.import_archive(elsewhere, tmp_path / "theirs.tar")
    assert (found.digest, found.config_digest, found.layers) == (made.digest, made.config_digest, made.layers)
    assert found.names == ("docker.io/library/web:3",)


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_layers_that_skopeo_compressed_unpack_to_the_same_tree(
    store: ImageStore,
    made: image.Image,
    exported: dict[str, Path],
    elsewhere: ImageStore,
    tmp_path: Path,
    form: str,
) -> None:
    skopeo(
        f"oci-archive:{exported['oci']}",
        f"oci:{tmp_path}/compressed:web:1",
        "--dest-compress",
        f"--dest-compress-format={form}",
    )
    found = archive.import_archive(elsewhere, tmp_path / "compressed")
    assert [layer.media_type.rpartition("+")[2] for layer in found.layers] == [form, form]
    assert diff_ids(found) == diff_ids(made)
    ours, theirs = unpack.unpack(store, made), unpack.unpack(elsewhere, found)
    assert [describe(folder) for folder in ours] == [describe(folder) for folder in theirs]


def test_a_layout_by_umoci_comes_in_with_its_digests(elsewhere: ImageStore, tmp_path: Path) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:v1")
    run("umoci", "unpack", "--image", f"{layout}:v1", bundle)
    tool = bundle / "rootfs" / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_bytes(b"tool" * 1000)
    tool.chmod(0o2755)
    os.setxattr(tool, "user.colour", b"blue")
    run("umoci", "repack", "--image", f"{layout}:v2", bundle)
    run("umoci", "config", "--image", f"{layout}:v2", "--config.cmd", "/bin/tool", "--config.exposedports", "80/tcp")
    found = archive.import_archive(elsewhere, layout, name="tool", select="v2")
    expected = json.loads(run("umoci", "stat", "--image", f"{layout}:v2", "--json"))
    assert [layer.digest for layer in found.layers] == [
        entry["layer"]["digest"] for entry in expected["history"] if entry["layer"]
    ]
    assert (found.config.cmd, found.config.exposed_ports) == (("/bin/tool",), ("80/tcp",))
    unpacked = unpack.unpack(elsewhere, found)[-1] / "bin" / "tool"
    assert unpacked.read_bytes() == b"tool" * 1000
    assert stat.S_IMODE(unpacked.stat().st_mode) == 0o2755
    assert os.getxattr(unpacked, "user.colour") == b"blue"


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_podman_saves_loads_here(
    made: image.Image,
    exported: dict[str, Path],
    elsewhere: ImageStore,
    podman: Callable[..., str],
    tmp_path: Path,
    form: str,
) -> None:
    podman("load", "-i", exported["docker"])
    podman("save", "--format", form, "-o", tmp_path / "saved.tar", "host.example:5000/team/web:1")
    found = archive.import_archive(elsewhere, tmp_path / "saved.tar")
    assert found.names == made.names
    assert diff_ids(found) == diff_ids(made)
    assert found.config_digest == made.config_digest or form == "oci-archive"
    assert len(unpack.unpack(elsewhere, found)) == 2


# Whole trees


@pytest.mark.parametrize("form", ["--format=gnu", "--format=posix", "--format=ustar"])
def test_a_tree_packed_by_gnu_tar_comes_out_as_it_was(store: ImageStore, tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / ("n" * 90)).write_bytes(os.urandom(70_000))
    (source / "a" / "caf\udce9").write_bytes(b"not UTF-8")
    (source / "empty").mkdir(mode=0o711)
    (source / "a" / "link").symlink_to("../" + "t" * 80)
    os.link(source / "a" / "b" / ("n" * 90), source / "hard")
    os.chown(source / "hard", 1234, 5678)
    (source / "hard").chmod(0o4711)
    os.utime(source / "hard", (1, 1_500_000_000))
    packed = subprocess.run(["tar", "-C", str(source), form, "-cf", "-", "."], check=True, capture_output=True).stdout
    found = archive.import_archive(store, makers.stream(packed))
    expected = describe(source)
    if form != "--format=posix":
        expected = {name: _whole_seconds(entry) for name, entry in expected.items()}
    assert describe(unpack.unpack(store, found)[0]) == expected


def _whole_seconds(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    return (entry[0], float(int(entry[1])), *entry[2:]) if len(entry) == 4 else entry


def test_the_library_of_this_machine_survives_the_trip(store: ImageStore, tmp_path: Path) -> None:
    """A few thousand real files: Python's own library, packed by tar, unpacked by us, compared by tar."""
    library = Path(tarfile.__file__).parent
    with (tmp_path / "library.tar").open("wb") as file:
        command = ["tar", "-C", str(library), "--exclude=__pycache__", "-cf", "-", "."]
        subprocess.run(command, check=True, stdout=file)
    folder = unpack.unpack(store, archive.import_archive(store, tmp_path / "library.tar"))[0]
    run("tar", "-C", folder, "--compare", "-f", tmp_path / "library.tar")


def test_an_image_of_busybox_runs_in_its_root(store: ImageStore) -> None:
    """What the demonstration does: an image from files of this machine, with the tool's other names as links."""
    entries: list[rootfs.Entry] = [rootfs.File(path="/bin/busybox", content=Path("/bin/busybox"), mode=0o755)]
    entries += [rootfs.Symlink(path=f"/bin/{name}", target="busybox") for name in ("sh", "echo", "cat")]
    built = rootfs.build_image(store, entries, image.Config(cmd=("/bin/sh",)), "web")
    (folder,) = unpack.unpack(store, built)
    assert run("chroot", folder, "/bin/sh", "-c", "echo hello | cat") == "hello\n"
    packed = io.BytesIO()
    export.export_archive(store, built, packed, "docker")
    assert archive.import_archive(store, makers.stream(packed.getvalue())) == built


def test_several_images_go_to_podman_and_back(
    store: ImageStore, load: Load, made: image.Image, elsewhere: ImageStore, podman: Callable[..., str], tmp_path: Path
) -> None:
    other = load(BASE, name="host.example:5000/other:2")
    with (tmp_path / "both.tar").open("wb") as file:
        export.export_all(store, [made, other], file, "docker")
    podman("load", "-i", tmp_path / "both.tar")
    names = ["host.example:5000/team/web:1", "host.example:5000/other:2"]
    podman("save", "--multi-image-archive", "-o", tmp_path / "back.tar", *names)
    found = {image.names[0]: image for image in archive.import_all(elsewhere, tmp_path / "back.tar")}
    assert {name: found[name].config_digest for name in names} == {
        names[0]: made.config_digest,
        names[1]: other.config_digest,
    }


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_what_we_compress_umoci_and_skopeo_read(
    store: ImageStore, made: image.Image, tmp_path: Path, kind: compress.Kind
) -> None:
    packed = recompress.convert(store, made, kind)
    export.export_folder(store, [packed], tmp_path / "layout")
    label = f"{tmp_path}/layout:{made.names[0]}"
    assert json.loads(run("skopeo", "inspect", f"oci:{label}"))["Layers"] == [layer.digest for layer in packed.layers]
    for layer in packed.layers:
        blob = tmp_path / "layout" / "blobs" / "sha256" / digests.hex_of(layer.digest)
        plain = subprocess.run([kind, "-dc"], input=blob.read_bytes(), capture_output=True, check=True).stdout
        assert digests.of_bytes(plain) == layer.diff_id
    if kind == "gzip":  # neither umoci nor Docker's format knows zstd
        run("umoci", "raw", "unpack", "--image", label, tmp_path / "tree")
        assert (tmp_path / "tree" / "etc" / "new").read_bytes() == b"new"
        skopeo(f"oci:{label}", f"docker-archive:{tmp_path}/plain.tar:back:1")
        back = archive.import_archive(ImageStore(tmp_path / "back"), tmp_path / "plain.tar")
        assert diff_ids(back) == diff_ids(made)


def test_a_tree_that_podman_exports_is_the_one_that_we_export(
    store: ImageStore, made: image.Image, exported: dict[str, Path], podman: Callable[..., str], tmp_path: Path
) -> None:
    podman("load", "-i", exported["docker"])
    container = podman("create", "host.example:5000/team/web:1", "/bin/web").strip()
    podman("export", "-o", tmp_path / "theirs.tar", container)
    ours = io.BytesIO()
    flatten.export_root(store, made, ours)
    with tarfile.open(fileobj=io.BytesIO(ours.getvalue())) as found, tarfile.open(tmp_path / "theirs.tar") as theirs:
        assert _files_of(found).items() <= _files_of(theirs).items(), "podman adds mount points of its own"
        assert "etc/gone" not in theirs.getnames()


def _files_of(tar: tarfile.TarFile) -> dict[str, tuple[object, ...]]:
    """Files and links with what they are; a hard link counts as the file that it is.

    Modes are left out: podman gives a file that of the last hard link to it, which here is another one.
    """
    return {
        member.name: (member.uid, member.gid, member.issym(), _content_of(tar, member))
        for member in tar.getmembers()
        if not member.isdir()
    }


def _content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> object:
    if member.issym():
        return member.linkname
    file = tar.extractfile(member)
    return file.read() if file else None
