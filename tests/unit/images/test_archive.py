"""Archives: every honest form comes in with its digests, every hostile one is refused and leaves no name."""

from __future__ import annotations

import gzip
import io
import os
from typing import TYPE_CHECKING

import pytest

from images import archive, documents, errors, export, image, manifest
from images import digest as digests
from images.compression import Limits
from images.store import ImageStore
from tests.unit.images import makers

if TYPE_CHECKING:
    from pathlib import Path

LAYER = makers.archive(makers.directory("bin"), makers.member("bin/web", content=b"#!", mode=0o755))
OTHER = makers.archive(makers.member("etc/motd", content=b"hello"))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def take(store: ImageStore, members: dict[str, bytes], **options: object) -> image.Image:
    return archive.import_archive(store, makers.stream(makers.files(members)), **options)  # type: ignore[arg-type]


# Honest archives


@pytest.mark.parametrize("make", [makers.docker_archive, makers.oci_layout])
def test_an_archive_comes_in_under_its_name_with_its_digests(store: ImageStore, make: object) -> None:
    assert callable(make)
    made = take(store, make(LAYER, OTHER))
    assert made.names == ("docker.io/library/web:1",)
    assert [layer.diff_id for layer in made.layers] == [digests.of_bytes(LAYER), digests.of_bytes(OTHER)]
    assert made.config_digest == digests.of_bytes(makers.config_document(LAYER, OTHER))
    assert store.missing(made.digest) == ()
    assert list(store.tmp.iterdir()) == []


@pytest.mark.parametrize("make", [makers.docker_archive, makers.oci_layout])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("pipe", [False, True])
def test_compressed_and_piped_archives_are_the_same_image(
    store: ImageStore, make: object, compress: bool, pipe: bool
) -> None:
    assert callable(make)
    data = makers.files(make(LAYER))
    expected = archive.import_archive(store, makers.stream(data), name="expected")
    packed = gzip.compress(data) if compress else data
    file = makers.Pipe(packed) if pipe else makers.stream(packed)
    assert archive.import_archive(store, file, name="other").digest == expected.digest  # type: ignore[arg-type]


def test_a_layout_in_a_folder_is_read_in_place(store: ImageStore, tmp_path: Path) -> None:
    for name, data in makers.oci_layout(LAYER).items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert archive.import_archive(store, tmp_path / "layout").names == ("docker.io/library/web:1",)


def test_a_name_given_replaces_those_of_the_archive(store: ImageStore) -> None:
    assert take(store, makers.docker_archive(LAYER), name="mine:2").names == ("docker.io/library/mine:2",)


def test_a_tag_that_only_means_something_in_its_layout_names_nothing(store: ImageStore) -> None:
    """umoci writes `latest` where Docker would write `docker.io/library/web:latest`."""
    assert take(store, makers.oci_layout(LAYER, label="latest")).names == ()
    assert take(store, makers.oci_layout(LAYER, label="latest"), name="web", select="latest").names != ()


def test_an_archive_of_several_images_needs_a_choice(store: ImageStore) -> None:
    first, second = makers.docker_archive(LAYER, tags=("a:1", "a:2")), makers.docker_archive(OTHER, tags=("b:1",))
    second["other/layer.tar"] = second.pop("0/layer.tar")
    listing = documents.parse_any(first.pop("manifest.json"), what="x")
    listing += documents.parse_any(second.pop("manifest.json").replace(b"0/layer", b"other/layer"), what="x")
    members = {**first, **second, "manifest.json": documents.dump(listing)}
    with pytest.raises(errors.InvalidReference, match=r"2 images \(a:1, a:2, b:1\); select one"):
        take(store, members)
    with pytest.raises(errors.InvalidReference, match="2 images"):
        take(store, members, name="web")
    assert store.list() == (), "what was refused got no name"
    assert take(store, members, select="b:1").names == ("docker.io/library/b:1",)
    with pytest.raises(errors.NotFound, match="it holds a:1, a:2, b:1"):
        take(store, members, select="c:1")
    assert len(store.list()) == 1, "what was refused got no name"
    everything = archive.import_all(store, makers.stream(makers.files(members)))
    assert [len(found.names) for found in everything] == [2, 1]


def test_a_layer_that_two_images_share_may_be_a_link_inside_the_archive(store: ImageStore) -> None:
    twice = makers.docker_archive(LAYER, LAYER)
    del twice["1/layer.tar"]
    data = b"".join(makers.member(name, content=content) for name, content in twice.items())
    packed = makers.archive(makers.directory("1"), makers.symlink("1/layer.tar", "../0/layer.tar"), data)
    made = archive.import_archive(store, makers.stream(packed))
    assert [layer.digest for layer in made.layers] == [digests.of_bytes(LAYER)] * 2


def test_an_index_in_a_layout_gives_the_image_for_the_platform(store: ImageStore) -> None:
    members = makers.oci_layout(LAYER, label=None)
    body = members[makers.blob_name(makers.manifest_document(makers.config_document(LAYER), LAYER))]
    foreign = {"mediaType": manifest.OCI_MANIFEST, "digest": digests.of_bytes(b"x"), "size": 1}
    inner = makers.index_document(
        {**foreign, "platform": {"architecture": "s390x"}},
        {**foreign, "platform": {"architecture": "unknown", "os": "unknown"}},
        makers.descriptor(
            body, manifest.OCI_MANIFEST, platform={"architecture": manifest.host_platform().architecture}
        ),
    )
    members[makers.blob_name(inner)] = inner
    members["index.json"] = makers.index_document(makers.descriptor(inner, manifest.OCI_INDEX))
    assert take(store, members, name="web").digest == digests.of_bytes(body)
    with pytest.raises(errors.NotFound, match="no image for linux/riscv64; it offers"):
        take(store, members, platform=manifest.Platform(architecture="riscv64"))


# Root file systems


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("pipe", [False, True])
def test_a_root_file_system_becomes_an_image_of_one_layer(store: ImageStore, compress: bool, pipe: bool) -> None:
    data = gzip.compress(LAYER, mtime=0) if compress else LAYER
    file = makers.Pipe(data) if pipe else makers.stream(data)
    config = image.Config(cmd=("/bin/web",), env=("A=b",), exposed_ports=("80/tcp",), created="2024-01-02T03:04:05Z")
    made = archive.import_archive(store, file, name="web", config=config)  # type: ignore[arg-type]
    assert made.config == config
    assert (made.layers[0].digest, made.layers[0].diff_id) == (digests.of_bytes(data), digests.of_bytes(LAYER))
    again = archive.import_archive(store, makers.stream(data), name="again", config=config)
    assert again.digest == made.digest, "the same tar and overrides give the same image"


def test_overrides_for_an_image_that_has_a_config_are_refused(store: ImageStore) -> None:
    with pytest.raises(errors.InvalidReference, match="has configs of its own"):
        take(store, makers.docker_archive(LAYER), config=image.Config(cmd=("x",)))


# Hostile archives


def _docker(**changes: object) -> dict[str, bytes]:
    members = makers.docker_archive(LAYER)
    item = documents.parse_any(members["manifest.json"], what="x")[0]
    return {**members, "manifest.json": documents.dump([{**item, **changes}])}


def _without(members: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    return {name: data for name, data in members.items() if not name.startswith(prefix)}


def _oci(**changes: bytes) -> dict[str, bytes]:
    names = {"index": "index.json", "layout": "oci-layout"}
    return {**makers.oci_layout(LAYER), **{names[key]: data for key, data in changes.items()}}


_LAYER_NAME = makers.blob_name(LAYER)
_BOTH = documents.dump({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}})

HOSTILE: list[tuple[bytes, str]] = [
    (
        makers.files({**makers.docker_archive(LAYER), "../../etc/passwd": b"x"}),
        "entry '../../etc/passwd': its path holds '..'",
    ),
    (makers.files({**makers.docker_archive(LAYER), "/etc/passwd": b"x"}), "entry '/etc/passwd': its path is absolute"),
    (makers.files(_docker(Layers=["../../../etc/passwd"])), "entry '../../../etc/passwd' is named but missing"),
    (makers.files(_docker(Layers=["/etc/passwd"])), "entry '/etc/passwd' is named but missing"),
    (makers.files(_docker(Config="../../etc/passwd")), "entry '../../etc/passwd' is named but missing"),
    (makers.files(_docker(RepoTags=["../../x:1"])), "image reference '../../x:1'"),
    (makers.files(_docker(RepoTags=["good:1", "bad name:1"])), "image reference 'bad name:1'"),
    (makers.files(_docker(RepoTags="web:1")), "manifest.json: [0].RepoTags: expected a list"),
    (makers.files(_docker(Layers=[])), "0 layers, but the config lists 1 diff ids"),
    (makers.files({**makers.docker_archive(LAYER), "0/layer.tar": OTHER}), "the bytes have digest"),
    (makers.files({**makers.docker_archive(LAYER), "manifest.json": b"[]"}), "manifest.json lists no image"),
    (makers.files({**makers.docker_archive(LAYER), "manifest.json": b"[[]]"}), "expected an object"),
    (makers.files({**makers.docker_archive(LAYER), "manifest.json": b"[" * 10_000}), "nested deeper"),
    (makers.files({**makers.docker_archive(LAYER), "manifest.json": b" " * (5 << 20)}), "larger than 4 MiB"),
    (
        makers.archive(
            makers.symlink("0/layer.tar", "/etc/passwd"),
            *(makers.member(name, content=data) for name, data in _without(makers.docker_archive(LAYER), "0/").items()),
        ),
        "entry '0/layer.tar' is a link to no file of the archive",
    ),
    (
        makers.archive(
            makers.hardlink("0/layer.tar", "manifest.json"),
            *(makers.member(name, content=data) for name, data in _without(makers.docker_archive(LAYER), "0/").items()),
        ),
        "entry '0/layer.tar' is not a plain file",
    ),
    (
        makers.archive(
            makers.symlink("0/layer.tar", "../0/layer.tar"),
            *(makers.member(name, content=data) for name, data in _without(makers.docker_archive(LAYER), "0/").items()),
        ),
        "is a link to no file",
    ),
    (
        makers.archive(
            *(makers.member(name, content=data) for name, data in makers.docker_archive(LAYER).items()),
            makers.member("0/layer.tar", content=OTHER),
        ),
        "entry '0/layer.tar' stands twice",
    ),
    (makers.files({"repositories": b"{}", "abc/layer.tar": LAYER}), "saved by a Docker before 1.10"),
    (makers.files(_oci(layout=b'{"imageLayoutVersion": "9"}')), "imageLayoutVersion"),
    (makers.files(_oci(index=_BOTH)), "index.json: manifests: the document is both"),
    (makers.files(_oci(index=makers.index_document())), "it offers nothing"),
    (makers.files(_oci(index=makers.manifest_document(b"{}"))), "is no index"),
    (makers.files(_without(makers.oci_layout(LAYER), "index")), "'index.json' is named but missing"),
    (makers.files(_without(makers.oci_layout(LAYER), _LAYER_NAME)), "is named but missing"),
    (makers.files({**makers.oci_layout(LAYER), _LAYER_NAME: OTHER}), "blob sha256:"),
    (
        makers.files(
            _oci(
                index=makers.index_document({"mediaType": manifest.OCI_MANIFEST, "digest": "sha256:../../x", "size": 1})
            )
        ),
        "index.json: manifests[0].digest: ",
    ),
    (makers.files(makers.docker_archive(LAYER))[:-1024], "no end mark"),
    (makers.files(makers.docker_archive(LAYER))[:1500], "cut off"),
    (gzip.compress(makers.files(makers.docker_archive(LAYER)))[:-30], "gzip stream was cut off"),
    (gzip.compress(makers.files(makers.docker_archive(LAYER)))[:-8] + bytes(8), "the gzip stream is damaged"),
    (makers.archive(), "holds no files"),
    (b"", "cut off at byte 0"),
    (b"hello", "cut off"),
    (b"PK\x03\x04" + bytes(600), "compressed with zip"),
    (b"\x28\xb5\x2f\xfd\xff" + bytes(600), "the zstd stream is damaged"),
    (b"\xfd7zXZ\0" + bytes(600), "compressed with xz, which is not read; decompress it with `xz -d`"),
]


@pytest.mark.parametrize(("data", "complaint"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_or_damaged_archive_is_refused_and_names_nothing(
    store: ImageStore, data: bytes, complaint: str
) -> None:
    with pytest.raises(errors.ImageError) as caught:
        archive.import_archive(store, makers.stream(data))
    assert complaint in str(caught.value)
    assert store.list() == ()
    assert list(store.tmp.iterdir()) == []
    store.prune()
    assert list((store.root / "blobs" / "sha256").iterdir()) == [], "what came before the refusal is collected"
    assert archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(LAYER)))).names, (
        "no lock stays"
    )


def test_a_folder_with_links_or_pipes_in_place_of_files_is_refused(store: ImageStore, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    (folder / "blobs").mkdir(parents=True)
    (folder / "oci-layout").write_bytes(makers.OCI_LAYOUT)
    with pytest.raises(errors.InvalidImage, match=r"file 'index\.json': No such file"):
        archive.import_archive(store, folder)
    (folder / "index.json").symlink_to("/etc/passwd")
    with pytest.raises(errors.InvalidImage, match="passes through a symbolic link"):
        archive.import_archive(store, folder)
    (folder / "index.json").unlink()
    os.mkfifo(folder / "index.json")
    with pytest.raises(errors.InvalidImage, match="not a plain file"):
        archive.import_archive(store, folder)
    with pytest.raises(errors.InvalidImage, match="neither oci-layout nor manifest"):
        archive.import_archive(store, tmp_path)
    with pytest.raises(errors.NotFound, match="No such file"):
        archive.import_archive(store, tmp_path / "nowhere")


def test_a_bomb_is_stopped_at_its_ratio_and_at_its_size(store: ImageStore) -> None:
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=9) as packer:
        packer.write(makers.member("zeros", content=b"")[:512])
        for _ in range(80):
            packer.write(bytes(1 << 20))
    bomb.seek(0)
    with pytest.raises(errors.LimitExceeded, match="more than 200 times its stored size"):
        archive.import_archive(store, bomb)
    many = makers.archive(*(makers.member(f"f{number}") for number in range(20)))
    with pytest.raises(errors.LimitExceeded, match="more than 10 entries"):
        archive.import_archive(store, makers.stream(many), limits=Limits(max_entries=10))
    with pytest.raises(errors.LimitExceeded, match="more than 4096 bytes"):
        archive.import_archive(store, makers.stream(many), limits=Limits(max_bytes=4096))
    with pytest.raises(errors.LimitExceeded, match="4096 bytes"):
        archive.import_archive(store, makers.Pipe(many), limits=Limits(max_bytes=4096))  # type: ignore[arg-type]
    assert list(store.tmp.iterdir()) == []


def test_a_bad_name_is_refused_before_the_work(store: ImageStore) -> None:
    with pytest.raises(errors.InvalidReference):
        take(store, makers.docker_archive(LAYER), name="Not A Name")
    assert list((store.root / "blobs" / "sha256").iterdir()) == []


# Export


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_an_export_comes_back_as_the_same_image(store: ImageStore, tmp_path: Path, form: export.Format) -> None:
    made = take(store, makers.docker_archive(LAYER, OTHER, tags=("web:1", "localhost:5000/web:2"), Cmd=["/bin/web"]))
    first, second = io.BytesIO(), io.BytesIO()
    export.export_archive(store, made, first, form)
    export.export_archive(store, made, second, form)
    assert first.getvalue() == second.getvalue()
    other = ImageStore(tmp_path / "other")
    assert archive.import_archive(other, makers.stream(first.getvalue())) == made


def test_an_image_without_a_name_travels_too(store: ImageStore, tmp_path: Path) -> None:
    made = archive.import_archive(store, makers.stream(LAYER))
    packed = io.BytesIO()
    export.export_archive(store, made, packed)
    assert archive.import_archive(ImageStore(tmp_path / "other"), makers.stream(packed.getvalue())) == made


def test_an_incomplete_image_is_not_exported(store: ImageStore) -> None:
    made = take(store, makers.docker_archive(LAYER))
    (store.root / "blobs" / "sha256" / digests.hex_of(made.layers[0].digest)).unlink()
    packed = io.BytesIO()
    with pytest.raises(errors.NotFound, match="is missing; fetch the image again"):
        export.export_archive(store, made, packed)
    assert packed.getvalue() == b""


def test_what_the_disk_damaged_does_not_travel(store: ImageStore) -> None:
    made = archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(LAYER))))
    blob = store.root / "blobs" / "sha256" / digests.hex_of(made.layers[0].digest)
    rotten = bytearray(blob.read_bytes())
    rotten[600] ^= 1
    blob.write_bytes(rotten)
    with pytest.raises(errors.DigestMismatch, match="damaged on the disk and is removed"):
        export.export_archive(store, made, io.BytesIO())
    assert not blob.exists()


def test_images_that_share_a_layer_travel_with_one_copy_of_it(store: ImageStore, tmp_path: Path) -> None:
    big = makers.archive(makers.member("big", content=os.urandom(300_000)))
    images = [
        archive.import_archive(store, makers.stream(makers.files(makers.docker_archive(big, Cmd=[word]))), name=word)
        for word in ("one", "two")
    ]
    packed = io.BytesIO()
    export.export_all(store, images, packed, "docker")
    assert len(packed.getvalue()) < 2 * len(big)
    elsewhere = ImageStore(tmp_path / "elsewhere")
    assert archive.import_all(elsewhere, makers.stream(packed.getvalue())) == tuple(images)
