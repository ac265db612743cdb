"""Forgetting images: what is asked for goes with all that only it needs, and a look beforehand changes nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from images import collect, errors, image, lookup, manifest, rootfs
from images import digest as digests
from images.store import ImageStore
from tests.unit.images import makers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def build(store: ImageStore, text: str, name: str | None = None) -> image.Image:
    entry = rootfs.File(path="etc/motd", content=text.encode())
    return rootfs.build_image(store, [entry], image.Config(cmd=("cat", text)), name)


def used(store: ImageStore, made: image.Image, at_s: float) -> None:
    os.utime(store.root / "blobs" / "sha256" / made.digest.removeprefix("sha256:"), (at_s, at_s))


def all_files(store: ImageStore) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if "locks" not in path.parts}


def test_what_was_not_used_for_long_goes_and_the_rest_stays(store: ImageStore) -> None:
    old, new = build(store, "old", "old"), build(store, "new", "new")
    store.tag("old:too", old.digest)
    used(store, old, 1000)
    swept = store.prune(forget=collect.unused_since(2000))
    assert swept.names == ("docker.io/library/old:latest", "docker.io/library/old:too")
    assert swept.blobs == 3
    assert [found.digest for found in store.list()] == [new.digest]
    assert store.missing(new.digest) == ()


def test_what_is_kept_keeps_its_name_too(store: ImageStore) -> None:
    runs = build(store, "runs", "runs")
    build(store, "idle", "idle")
    swept = store.prune([runs.digest], forget=collect.everything)
    assert swept.names == ("docker.io/library/idle:latest",)
    assert store.resolve("runs").digest == runs.digest


def test_a_policy_that_names_what_is_kept_is_not_believed(store: ImageStore) -> None:
    runs = build(store, "runs", "runs")
    store.prune([runs.digest], forget=lambda _: [runs.digest])
    assert store.missing(store.resolve("runs").digest) == ()


def test_using_an_image_makes_it_young(store: ImageStore) -> None:
    made = build(store, "web", "web")
    used(store, made, 1000)
    store.touch(made.digest)
    assert store.prune(forget=collect.unused_since(2000)).names == ()


def test_a_dry_run_tells_what_would_go_and_changes_nothing(store: ImageStore) -> None:
    build(store, "named", "web")
    build(store, "loose")
    layer = store.layers / ("0" * 64)
    (layer / "diff").mkdir(parents=True)
    (layer / "diff" / "file").write_bytes(b"x" * 1000)
    before = all_files(store)
    told = store.prune(forget=collect.everything, dry_run=True)
    assert all_files(store) == before
    assert told == store.prune(forget=collect.everything)
    assert (told.blobs, told.layers, told.unpacked_bytes) == (6, 1, 1000)
    assert store.list() == ()


def test_forgetting_a_name_takes_only_what_that_image_alone_needs(store: ImageStore) -> None:
    first, second = build(store, "first", "first"), build(store, "second", "second")
    loose = build(store, "somebody works on it")
    swept = store.forget(["first"])
    assert swept.blobs == 3
    assert not store.has(first.digest)
    assert store.missing(second.digest) == ()
    assert store.missing(loose.digest) == (), "what has no name is the business of prune"


def test_forgetting_one_of_two_names_frees_nothing(store: ImageStore) -> None:
    made = build(store, "web", "web:1")
    store.tag("web:2", made.digest)
    assert store.forget(["web:1"]).size_bytes == 0
    assert store.resolve("web:2").digest == made.digest


def test_forgetting_several_is_all_or_nothing(store: ImageStore) -> None:
    build(store, "web", "web")
    with pytest.raises(errors.NotFound, match="library/gone:latest is not in"):
        store.forget(["web", "gone"])
    assert len(store.list()) == 1


def test_parts_are_what_an_image_takes(store: ImageStore) -> None:
    made = build(store, "web", "web")
    (found,) = store.stored([made.digest])
    assert found.is_kept
    assert found.size_bytes == sum(path.stat().st_size for path in (store.root / "blobs" / "sha256").iterdir())


# What a person calls an image


def test_an_image_is_found_by_the_first_figures_of_its_digest_or_id(store: ImageStore) -> None:
    made, loose = build(store, "web", "web"), build(store, "loose")
    for text in (made.digest, made.digest[7:], made.digest[7:19], made.digest[:15], made.config_digest, "web:latest"):
        assert lookup.find(store, text) == made
    assert lookup.find(store, made.config_digest[7:15]) == made
    assert lookup.find(store, loose.digest[7:19]) == loose


def test_figures_that_mean_several_are_refused_with_all_of_them(store: ImageStore) -> None:
    shared = "abcd"
    twins = [_with_digest_start(store, shared, f"twin:{number}") for number in range(2)]
    with pytest.raises(errors.InvalidReference) as caught:
        lookup.find(store, shared)
    assert all(twin.digest[7:23] in str(caught.value) for twin in twins)
    assert "twin:1" in str(caught.value)
    assert lookup.find(store, twins[0].digest[7:]).digest == twins[0].digest


def _with_digest_start(store: ImageStore, start: str, name: str) -> image.Image:
    """An image whose config's digest begins as asked, found by trying."""
    for number in range(1 << 22):
        config = makers.config_document(Cmd=[name, str(number)])
        if makers.blob_name(config).removeprefix("blobs/sha256/").startswith(start):
            store.put_bytes(config)
            return store.tag(name, store.put_bytes(makers.manifest_document(config)))
    pytest.fail("no such digest in four million")


def test_a_name_comes_before_figures(store: ImageStore) -> None:
    made = build(store, "web", "web")
    named = build(store, "named so", made.digest[7:13])
    assert lookup.find(store, made.digest[7:13]) == named


@pytest.mark.parametrize("text", ["abc", "gone", "feedfeed", "sha256:" + "0" * 64])
def test_what_is_not_there_is_not_found(store: ImageStore, text: str) -> None:
    with pytest.raises(errors.NotFound):
        lookup.find(store, text)


def test_a_full_disk_makes_room_by_marks(store: ImageStore) -> None:
    """What an agent does: how much is too much, then who goes, then the sweep."""
    old, new = build(store, "old", "old"), build(store, "new", "new")
    used(store, old, 1000)
    disk = store.disk()
    assert 0 < disk.free_bytes <= disk.total_bytes
    full = collect.Disk(total_bytes=disk.total_bytes, free_bytes=0)
    excess = collect.excess_bytes(full, collect.Marks())
    assert excess > disk.total_bytes // 5
    swept = store.prune(forget=collect.least_recently_used(1, spare_since_s=2000))
    assert swept.names == ("docker.io/library/old:latest",)
    assert store.resolve("new").digest == new.digest


def test_a_manifest_that_another_image_calls_a_layer_is_followed_all_the_same(store: ImageStore) -> None:
    """Whatever strangers put into one image, nothing of another one goes."""
    good = build(store, "good", "good")
    body = store.read_document(good.digest)
    for number in range(8):  # roots have no order: one of two would be right by chance
        config = makers.config_document(body, labels={"number": str(number)})
        evil = makers.manifest_document(config, body)
        for data in (config, evil):
            store.put_bytes(data)
        store.tag(f"evil:{number}", digests.of_bytes(evil))
    store.prune()
    assert store.missing(good.digest) == ()


def test_a_name_that_cannot_be_forgotten_keeps_everything(store: ImageStore) -> None:
    """Whatever goes wrong, goes wrong before the first name goes."""
    made, other = build(store, "one", "one"), build(store, "two", "two")
    path = store.root / "blobs" / "sha256" / other.config_digest.removeprefix("sha256:")
    path.write_bytes(b"?" + path.read_bytes()[1:])
    with pytest.raises(errors.DigestMismatch):
        store.forget(["one"])
    assert store.resolve("one").digest == made.digest


def indexed(store: ImageStore, name: str, *made: image.Image) -> str:
    """An index of images under a name: the first for this machine, the others for some that nobody has."""
    machines = [manifest.host_platform().architecture, *(f"m{number}" for number in range(len(made)))]
    entries = [
        makers.descriptor(store.read_document(one.digest), manifest.OCI_MANIFEST, platform={"architecture": machine})
        for one, machine in zip(made, machines, strict=False)
    ]
    digest = store.put_bytes(makers.index_document(*entries))
    store.tag(name, digest)
    return digest


def test_an_image_named_twice_by_way_of_an_index_is_one(store: ImageStore) -> None:
    """Whatever figures say, and in a list."""
    made = build(store, "web", "web:2")
    indexed(store, "web:1", made)
    names = ("docker.io/library/web:1", "docker.io/library/web:2")
    assert [found.names for found in store.list()] == [names]
    assert lookup.find(store, made.digest[7:19]).digest == made.digest
    assert lookup.find(store, made.config_digest[7:19]).names == names


def test_figures_of_an_index_mean_the_image_for_the_platform(store: ImageStore) -> None:
    ours, theirs = build(store, "ours"), build(store, "theirs")
    index = indexed(store, "web", ours, theirs)
    other = manifest.Platform(architecture="m0")
    assert lookup.find(store, index[7:19]).digest == ours.digest
    assert lookup.find(store, index[7:19], platform=other).digest == theirs.digest


def test_an_index_is_kept_with_any_of_its_images(store: ImageStore) -> None:
    """What a node keeps are digests of images; the name that they came by may stand for an index."""
    ours, theirs = build(store, "ours"), build(store, "theirs")
    indexed(store, "web", ours, theirs)
    for kept in (ours, theirs):
        assert store.prune([kept.digest], forget=collect.everything).names == ()
        assert store.prune([kept.digest], forget=lambda images: [one.digest for one in images]).names == ()
    assert store.prune(forget=collect.everything).names == ("docker.io/library/web:latest",)


def test_locks_of_the_dead_do_not_stay(store: ImageStore) -> None:
    """A fetch that was killed leaves its file; whoever lives is inside `hold()`, which prune waits for."""
    (store.root / "locks" / f"blob-{'0' * 64}").touch()
    (store.root / "locks" / f"layer-{'0' * 64}").touch()
    store.prune()
    assert sorted(path.name for path in (store.root / "locks").iterdir()) == ["gc", "names"]


def test_indexes_within_indexes_are_read_as_deep_as_they_are_pulled(store: ImageStore) -> None:
    made = build(store, "web")
    inner = store.read_document(made.digest)
    kind = manifest.OCI_MANIFEST
    for _ in range(manifest.MAX_INDEX_DEPTH):
        platform = {"architecture": manifest.host_platform().architecture}
        inner, kind = makers.index_document(makers.descriptor(inner, kind, platform=platform)), manifest.OCI_INDEX
        digest = store.put_bytes(inner)
        assert store.tag("web", digest).digest == made.digest
    deeper = store.put_bytes(makers.index_document(makers.descriptor(inner, kind, platform=platform)))
    with pytest.raises(errors.LimitExceeded, match="nested deeper than 3"):
        store.resolve(deeper)
