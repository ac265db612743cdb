"""Which images of a node make room, and which never do."""

import pytest

from agent.core import imageroom
from agent.core.observed import Observed, Sight
from agent.core.record import ContainerRecord, Record
from images import collect
from protos.orch.v1 import objects_pb2 as pb

NOW_S = 1_000_000.0
GIB = 1024**3


def stored(digest: str, *, age_s: float, size: int = 10 * GIB, is_kept: bool = False) -> collect.Stored:
    return collect.Stored(
        digest=digest, names=(digest,), used_at_s=NOW_S - age_s, parts={f"layer-of-{digest}": size}, is_kept=is_kept
    )


def chosen(*images: collect.Stored, free_gib: int = 50, max_age_s: float = 1_000) -> set[str]:
    disk = collect.Disk(total_bytes=100 * GIB, free_bytes=free_gib * GIB)
    return set(imageroom.policy(imageroom.Limits(max_age_s=max_age_s), disk, NOW_S)(images))


def test_what_was_not_used_for_long_goes_whatever_the_disk_has() -> None:
    assert chosen(stored("old", age_s=1_001), stored("new", age_s=999)) == {"old"}
    assert chosen(stored("old", age_s=1_001), max_age_s=0) == set()


def test_a_full_disk_takes_the_least_recently_used_until_there_is_room() -> None:
    """90 % are in use, and 75 % are to be: 15 GiB go, which are two images of 10."""
    images = [stored(name, age_s=age_s) for name, age_s in (("a", 900), ("b", 800), ("c", 700))]
    assert chosen(*images, free_gib=10) == {"a", "b"}


def test_what_age_frees_counts_for_the_disk() -> None:
    images = [stored("old", age_s=2_000, size=20 * GIB), stored("b", age_s=800)]
    assert chosen(*images, free_gib=10) == {"old"}


@pytest.mark.parametrize("free_gib", [50, 1])
def test_what_is_needed_or_has_just_come_stays(free_gib: int) -> None:
    assert chosen(stored("kept", age_s=9_000, is_kept=True), stored("fresh", age_s=1), free_gib=free_gib) == set()


@pytest.mark.parametrize(("count", "left"), [(799, 799), (800, 600), (1_000, 600)])
def test_very_many_names_make_room_on_a_disk_however_large(count: int, left: int) -> None:
    """A name for each commit fills the list of names, and then nothing new could be called anything."""
    images = [stored(f"{number:04}", age_s=900 - number / 10, size=1) for number in range(count)]
    gone = chosen(*images)
    assert count - len(gone) == left
    assert gone == {image.digest for image in images[: count - left]}, "the least recently used"
    kept = [stored(f"{number:04}", age_s=900, size=1, is_kept=True) for number in range(count)]
    assert chosen(*kept) == set()


def test_tasks_need_what_they_were_given_and_what_their_revisions_name() -> None:
    sidecar = Sight(record=ContainerRecord(image_digest="sha256:side"))
    observed = Observed(record=Record(image_digest="sha256:main"), others={"proxy": sidecar})
    template = pb.TaskTemplate(container=pb.Container(image="web:1"), init=[pb.Container(name="a", image="local:1")])
    revision = pb.Revision(template=template, images={"web:1": "sha256:next"})
    found = imageroom.needed([observed], [revision])
    assert found.digests == {"sha256:main", "sha256:side", "sha256:next"}
    assert found.references == {"local:1"}


def test_what_a_task_may_only_find_here_is_needed_by_its_name() -> None:
    """Also when another container of the revision has it settled."""
    never = pb.Container(image="web:1", image_pull_policy=pb.IMAGE_PULL_POLICY_NEVER)
    template = pb.TaskTemplate(container=never, init=[pb.Container(name="a", image="web:1")])
    found = imageroom.needed([], [pb.Revision(template=template, images={"web:1": "sha256:next"})])
    assert (found.digests, found.references) == ({"sha256:next"}, {"web:1"})
