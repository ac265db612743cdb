"""The store: what has a name is whole, names are atomic, and collection takes only what nothing reaches."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from images import digest as digests
from images import documents, errors, image, manifest, rootfs, scratch
from images.store import ImageStore
from tests.unit.images import makers

if TYPE_CHECKING:
    from pathlib import Path

HELLO = digests.of_bytes(b"hello")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def build(store: ImageStore, text: str, name: str | None = None) -> image.Image:
    entry = rootfs.File(path="etc/motd", content=text.encode())
    return rootfs.build_image(store, [entry], image.Config(cmd=("cat", "/etc/motd")), name)


def blobs_of(store: ImageStore) -> set[str]:
    return {digests.PREFIX + path.name for path in (store.root / "blobs" / "sha256").iterdir()}


# Blobs


def test_a_blob_reads_back_and_is_named_by_its_content(store: ImageStore) -> None:
    with store.writer(HELLO, 5) as blob:
        blob.write(b"hel")
        blob.write(memoryview(b"lo"))
    assert store.has(HELLO)
    assert store.size_bytes(HELLO) == 5
    with store.open(HELLO) as file:
        assert file.read() == b"hello"


@pytest.mark.parametrize(
    ("digest", "size", "complaint"),
    [
        (digests.of_bytes(b"other"), None, "the bytes have digest"),
        (HELLO, 4, "more than the 4 bytes announced"),
        (HELLO, 6, "5 bytes, announced 6"),
        (None, 6, "5 bytes, announced 6"),
    ],
)
def test_bytes_that_are_not_the_announced_ones_are_not_kept(
    store: ImageStore, digest: str | None, size: int | None, complaint: str
) -> None:
    with pytest.raises(errors.DigestMismatch, match=complaint), store.writer(digest, size) as blob:
        blob.write(b"hello")
    assert blobs_of(store) == set()
    assert list(store.tmp.iterdir()) == []


def test_a_writer_that_fails_half_way_leaves_nothing(store: ImageStore) -> None:
    def fetch() -> None:
        with store.writer(HELLO, 5) as blob:
            blob.write(b"hel")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fetch()
    assert not store.has(HELLO)
    assert list(store.tmp.iterdir()) == []


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "sha256:" + "A" * 64, "sha256:" + "a" * 64 + "\n"])
def test_what_is_not_a_digest_never_becomes_a_path(store: ImageStore, digest: str) -> None:
    for use in (store.has, store.open, store.size_bytes, store.layer_path):
        with pytest.raises(errors.InvalidReference, match="is not a digest"):
            use(digest)
    with pytest.raises(errors.InvalidReference), store.writer(digest):
        pass


def test_a_blob_without_end_is_stopped(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.blobs.MAX_BLOB_BYTES", 10)
    with pytest.raises(errors.LimitExceeded, match="more than 10 bytes"), store.writer(None, None) as blob:
        blob.copy(makers.stream(b"x" * 11))
    assert blobs_of(store) == set()


def test_concurrent_writers_of_one_blob_all_succeed(store: ImageStore) -> None:
    data = os.urandom(1 << 20)
    start = threading.Barrier(8)

    def write(_: int) -> str:
        start.wait(10)
        with store.writer(digests.of_bytes(data), len(data)) as blob:
            blob.write(data)
        return blob.digest

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(8))) == {digests.of_bytes(data)}
    assert list(store.tmp.iterdir()) == []


def test_a_missing_blob_says_so_and_what_to_do(store: ImageStore) -> None:
    with pytest.raises(errors.NotFound, match="import or fetch"):
        store.open(HELLO)


def test_a_document_that_rotted_on_the_disk_is_noticed(store: ImageStore) -> None:
    made = build(store, "x", "web")
    path = store.root / "blobs" / "sha256" / digests.hex_of(made.config_digest)
    path.write_bytes(path.read_bytes().replace(b"cat", b"rm "))
    with pytest.raises(errors.DigestMismatch, match="damaged on the disk and is removed"):
        store.resolve("web")
    assert [entry.digest for entry in store.missing(made.digest)] == [made.config_digest]


# The folder


def test_everything_is_for_its_owner_only(store: ImageStore) -> None:
    build(store, "x", "web")
    for path in (store.root, *store.root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_opening_sweeps_what_the_dead_left_and_spares_the_living(store: ImageStore) -> None:
    (store.tmp / "half-a-blob").write_bytes(b"x")
    (store.tmp / "half-a-layer" / "diff").mkdir(parents=True)
    with scratch.file(store.tmp) as living, scratch.folder(store.tmp) as living_folder:
        ImageStore(store.root)
        assert set(store.tmp.iterdir()) == {living.path, living_folder.path}
    assert list(store.tmp.iterdir()) == []


def test_a_store_of_another_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(errors.InvalidImage, match="imageLayoutVersion"):
        ImageStore(tmp_path)


# Images


def test_an_image_is_found_by_every_way_of_naming_it(store: ImageStore) -> None:
    made = build(store, "x", "web:1")
    for name in ("web:1", "docker.io/library/web:1", made.digest, f"web@{made.digest}", f"other:2@{made.digest}"):
        assert store.resolve(name) == made
    assert made.names == ("docker.io/library/web:1",)
    assert made.config.cmd == ("cat", "/etc/motd")
    assert made.layers[0].diff_id == made.layers[0].digest == made.chain_ids[0]


@pytest.mark.parametrize("name", ["nothing", "web:2", f"web@{HELLO}", HELLO])
def test_an_unknown_image_is_not_found(store: ImageStore, name: str) -> None:
    build(store, "x", "web:1")
    with pytest.raises(errors.NotFound, match="fetch"):
        store.resolve(name)


def test_a_name_moves_with_the_last_tag(store: ImageStore) -> None:
    first, second = build(store, "1", "web"), build(store, "2", "web")
    assert store.resolve("web").digest == second.digest
    assert store.resolve(first.digest).names == ()
    store.tag("old", first.digest)
    store.tag("older", first.digest)
    assert [entry.names for entry in store.list()] == [
        ("docker.io/library/old:latest", "docker.io/library/older:latest"),
        ("docker.io/library/web:latest",),
    ]


def test_a_name_that_pins_another_digest_is_refused(store: ImageStore) -> None:
    made = build(store, "1")
    store.tag(f"web@{made.digest}", made.digest)
    with pytest.raises(errors.InvalidReference, match="pins another digest"):
        store.tag(f"web@{HELLO}", made.digest)


def test_untag_forgets_one_name_only(store: ImageStore) -> None:
    made = build(store, "1", "web")
    store.tag("same", made.digest)
    store.untag("web")
    assert store.resolve("same").names == ("docker.io/library/same:latest",)
    with pytest.raises(errors.NotFound, match="image ls"):
        store.untag("web")


def test_an_incomplete_image_gets_no_name_and_says_what_is_missing(store: ImageStore, tmp_path: Path) -> None:
    """The way an agent fetches: the manifest first, then what `missing` lists, then the name."""
    made = build(store, "x")
    node = ImageStore(tmp_path / "node")
    node.put_bytes(store.read_document(made.digest))
    lacking = node.missing(made.digest)
    assert [entry.digest for entry in lacking] == [made.config_digest, made.layers[0].digest]
    with pytest.raises(errors.NotFound, match="cannot be named"):
        node.tag("web", made.digest)
    for entry in lacking:
        with store.open(entry.digest) as source, node.writer(entry.digest, entry.size_bytes) as blob:
            blob.copy(source)
    assert node.missing(made.digest) == ()
    assert node.tag("web", made.digest).layers == made.layers


def test_an_index_resolves_to_the_image_for_the_platform(store: ImageStore) -> None:
    images = {
        arch: rootfs.build_image(store, [], image.Config(), platform=manifest.Platform(architecture=arch))
        for arch in ("amd64", "arm64")
    }
    index = makers.index_document(
        *(
            makers.descriptor(store.read_document(made.digest), manifest.OCI_MANIFEST, platform={"architecture": arch})
            for arch, made in images.items()
        )
    )
    digest = store.put_bytes(index)
    store.tag("multi", digest)
    for arch, made in images.items():
        found = store.resolve("multi", platform=manifest.Platform(architecture=arch))
        assert (found.digest, found.names) == (made.digest, ("docker.io/library/multi:latest",))
    assert store.prune().blobs == 0, "an index keeps all that it names"


def test_indexes_inside_indexes_have_a_bound(store: ImageStore) -> None:
    digest = build(store, "x").digest
    media_type = manifest.OCI_MANIFEST
    for _ in range(4):
        entry = makers.descriptor(store.read_document(digest), media_type)
        digest, media_type = store.put_bytes(makers.index_document(entry)), manifest.OCI_INDEX
    for use in (store.resolve, store.missing):
        with pytest.raises(errors.LimitExceeded, match="nested deeper than 3"):
            use(digest)


def test_a_config_that_does_not_fit_its_manifest_is_refused(store: ImageStore) -> None:
    layer = makers.archive(makers.member("f"))
    config = makers.config_document(layer, layer)
    for blob in (layer, config):
        store.put_bytes(blob)
    digest = store.put_bytes(makers.manifest_document(config, layer))
    with pytest.raises(errors.InvalidImage, match="1 layers in the manifest, 2 diff ids"):
        store.tag("web", digest)
    assert store.list() == ()


def test_concurrent_tags_lose_no_name(store: ImageStore) -> None:
    made = build(store, "x")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.tag(f"web:{number}", made.digest), range(24)))
    assert len(store.resolve(made.digest).names) == 24


def test_an_index_file_that_was_broken_by_hand_is_named(store: ImageStore) -> None:
    (store.root / "index.json").write_text("{")
    with pytest.raises(errors.InvalidImage, match=r"index\.json"):
        store.list()


# Collection


def test_prune_takes_what_nothing_names_and_spares_what_is_shared(store: ImageStore) -> None:
    kept, loose = build(store, "kept", "web"), build(store, "loose")
    shared = documents.dump({"not": "an image"})
    stray = store.put_bytes(shared)
    swept = store.prune()
    assert swept.blobs == 4
    assert swept.size_bytes > 0
    assert store.missing(kept.digest) == ()
    assert not any(map(store.has, (loose.digest, loose.config_digest, loose.layers[0].digest, stray)))


def test_prune_spares_what_runs(store: ImageStore) -> None:
    running = build(store, "running", "web")
    layer = store.layer_path(running.chain_ids[0])
    layer.mkdir(parents=True)
    store.untag("web")
    store.prune([running.digest])
    assert store.missing(running.digest) == ()
    store.prune(keep_layers=running.chain_ids)
    assert layer.exists()
    assert blobs_of(store) == set()
    assert store.prune().layers == 1
    assert list(store.layers.iterdir()) == []


def test_prune_sweeps_what_the_dead_left(store: ImageStore) -> None:
    """A daemon that opens its store once a year must not collect the leftovers of every tool that was killed."""
    for number in range(70):
        (store.tmp / f"half-{number}").write_bytes(b"x")
    store.prune()
    assert list(store.tmp.iterdir()) == []


def test_prune_waits_for_whoever_is_adding(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.store._PRUNE_TIMEOUT_S", 0.05)
    with store.hold():
        made = build(store, "x")
        with pytest.raises(errors.Busy, match="try again later"):
            store.prune()
        store.tag("web", made.digest)
    assert store.prune().blobs == 0


# What is not whole


def test_a_damaged_image_hides_no_other_and_can_be_removed(store: ImageStore) -> None:
    good, bad = build(store, "good", "good"), build(store, "bad", "bad")
    (store.root / "blobs" / "sha256" / digests.hex_of(bad.config_digest)).unlink()
    assert store.list() == (good,)
    (name,) = store.broken()
    assert name == "docker.io/library/bad:latest"
    assert "import or fetch its image" in str(store.broken()[name])
    assert [found.digest for found in store.stored()] == [bad.digest, good.digest]
    store.forget(["bad"])
    assert store.broken() == {}
    assert blobs_of(store) == {good.digest, good.config_digest, good.layers[0].digest}


def test_an_index_without_this_machine_s_image_is_listed_with_what_it_has(store: ImageStore) -> None:
    config = makers.config_document().replace(manifest.host_platform().architecture.encode(), b"s390x")
    body = makers.manifest_document(config)
    wanted = [
        makers.descriptor(b"not stored", manifest.OCI_MANIFEST, platform={"architecture": "amd64"}),
        makers.descriptor(body, manifest.OCI_MANIFEST, platform={"architecture": "s390x"}),
    ]
    for data in (config, body):
        store.put_bytes(data)
    index = store.put_bytes(makers.index_document(*wanted))
    store._names.put("docker.io/library/far:1", store._describe(index))
    (found,) = store.list()
    assert str(found.platform) == "linux/s390x"
    assert found.names == ("docker.io/library/far:1",)
    assert store.broken() == {}
