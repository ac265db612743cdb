"""Which images make room, and when: decisions over values, for a person's `prune` and for agents.

Rules. What is kept (what runs, and what the caller names) is never chosen. The least recently used go first. And an
image is worth only the bytes that nothing else needs: layers that stay for others free nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A named image as a store has it. `parts` are its blobs and unpacked layers with their bytes."""

    digest: str
    names: tuple[str, ...]
    used_at_s: float
    """When it was last named or unpacked, in seconds of the wall clock."""
    parts: Mapping[str, int]
    is_kept: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """From `high_percent` of the disk in use, images go until it is `low_percent`."""

    high_percent: int = 85
    low_percent: int = 75

    def __post_init__(self) -> None:
        assert 0 < self.low_percent < self.high_percent <= 100, "0 < low < high <= 100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The file system that the store is on."""

    total_bytes: int
    free_bytes: int


Policy = Callable[[Sequence[Stored]], Collection[str]]
"""From all images of a store, kept ones too, to the digests of those to forget."""


def nothing(_images: Sequence[Stored]) -> Collection[str]:
    """Forget no image: only what has no name any more goes."""
    return ()


def everything(images: Sequence[Stored]) -> Collection[str]:
    """Forget every image that is not kept."""
    return tuple(image.digest for image in images if not image.is_kept)


def unused_since(moment_s: float) -> Policy:
    """Forget what was last used before a moment of the wall clock."""

    def choose(images: Sequence[Stored]) -> Collection[str]:
        return tuple(image.digest for image in images if not image.is_kept and image.used_at_s < moment_s)

    return choose


def least_recently_used(wanted_bytes: int, *, spare_since_s: float) -> Policy:
    """Forget the least recently used until `wanted_bytes` are free, or nothing more may go.

    What was used at `spare_since_s` or later stays: a task that is about to start has fetched it just now. An image
    whose layers others still need may free nothing; it goes all the same when its turn comes, since it is what keeps
    the next one from freeing them.
    """

    def choose(images: Sequence[Stored]) -> Collection[str]:
        needed = _needed(images)
        chosen: list[str] = []
        left_bytes = wanted_bytes
        for image in sorted(images, key=lambda image: (image.used_at_s, image.digest)):
            if left_bytes <= 0:
                break
            if not image.is_kept and image.used_at_s < spare_since_s:
                chosen.append(image.digest)
                left_bytes -= _release(image, needed)
        return tuple(chosen)

    return choose


def excess_bytes(disk: Disk, marks: Marks) -> int:
    """How much has to go; 0 while less than `high_percent` is in use.

    100 GB with 10 GB free are 90 % in use; at the marks 85 and 75, 15 GB have to go, so that 25 GB are free.
    """
    used_bytes = disk.total_bytes - disk.free_bytes
    if used_bytes * 100 < disk.total_bytes * marks.high_percent:
        return 0
    return used_bytes - disk.total_bytes * marks.low_percent // 100


def freed_bytes(images: Sequence[Stored], going: Collection[str]) -> int:
    """What is free once these have gone: every part that none of the others needs."""
    needed = _needed(images)
    return sum(_release(image, needed) for image in images if image.digest in going)


def unique_bytes(images: Sequence[Stored]) -> Mapping[str, int]:
    """For each image what it does not share with any other."""
    needed = _needed(images)
    return {image.digest: sum(size for part, size in image.parts.items() if needed[part] == 1) for image in images}


def _needed(images: Iterable[Stored]) -> Counter[str]:
    """How many images need each part."""
    return Counter(part for image in images for part in image.parts)


def _release(image: Stored, needed: Counter[str]) -> int:
    """Take an image out of the count; the bytes of the parts that nobody needs any more."""
    needed.subtract(image.parts.keys())
    return sum(size for part, size in image.parts.items() if needed[part] == 0)
