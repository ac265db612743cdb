"""Which images of a node stay, and which make room: by age, by what its disk lacks, and when there are very many.

What runs stays, and so does what an assignment names or a task was given a moment ago. All others stay too, until they
were not used for long or the disk fills: the next task may start from them at once.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from agent.core.observed import Observed
from images import collect
from protos import containers
from protos.orch.v1 import objects_pb2 as pb

DAY_S = 24 * 3600.0
SPARED_S = 300.0
"""What was used within this time stays whatever the disk lacks: its task is about to start."""
MANY_NAMES, FEWER_NAMES = 800, 600
"""From so many names on, the least recently used images go until there are fewer. A store takes 1,000, and a name for
each commit fills it however large the disk is.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From `marks.high_percent` of the disk in use, the least recently used go until it is `marks.low_percent`."""

    marks: collect.Marks = field(default_factory=collect.Marks)
    max_age_s: float = 7 * DAY_S
    """What was not used for this long goes. 0: age does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What tasks of this node have or may start."""

    digests: frozenset[str]
    references: frozenset[str]
    """Images whose digest nobody has settled: what their names mean here."""


def needed(observed: Iterable[Observed], revisions: Iterable[pb.Revision]) -> Needed:
    """From what there is of each task, and what is assigned."""
    given = {sight.record.image_digest for one in observed for _, sight in one.each}
    settled = {digest for one in revisions for digest in one.images.values()}
    every = [
        (container.image_pull_policy != pb.IMAGE_PULL_POLICY_NEVER and container.image in one.images, container.image)
        for one in revisions
        for container in (*containers.others(one.template), one.template.container)
    ]
    return Needed(
        digests=frozenset(given | settled) - {""},
        references=frozenset(image for is_settled, image in every if not is_settled),
    )


def policy(limits: Limits, disk: collect.Disk, now_s: float) -> Callable[[Sequence[collect.Stored]], Collection[str]]:
    """What is to be forgotten: by age first, then as much more as the disk lacks, and as many more as are too many."""

    def choose(images: Sequence[collect.Stored]) -> Collection[str]:
        going = set(collect.unused_since(now_s - limits.max_age_s)(images) if limits.max_age_s else ())
        lacks = collect.excess_bytes(disk, limits.marks) - collect.freed_bytes(images, going)
        if lacks > 0:
            going.update(collect.least_recently_used(lacks, spare_since_s=now_s - SPARED_S)(_without(images, going)))
        going.update(_too_many(_without(images, going), now_s - SPARED_S))
        return going

    return choose


def _without(images: Sequence[collect.Stored], going: Collection[str]) -> Sequence[collect.Stored]:
    return [image for image in images if image.digest not in going]


def _too_many(images: Sequence[collect.Stored], spare_since_s: float) -> Iterator[str]:
    """The least recently used, when there are very many names."""
    count = sum(len(image.names) for image in images)
    if count < MANY_NAMES:
        return
    for image in sorted(images, key=lambda image: (image.used_at_s, image.digest)):
        if count <= FEWER_NAMES:
            return
        if not image.is_kept and image.used_at_s < spare_since_s:
            count -= len(image.names)
            yield image.digest
