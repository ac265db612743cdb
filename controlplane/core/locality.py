"""What nodes would have to fetch before they could start a task: of two that are as good otherwise, the one that has
its images is taken.

The rule: it is a small thing. To fetch is slow once, and a bad place lasts, so what has to be fetched weighs as much as
half a task that the node had more, or one and a half, and nothing else is ever set aside for it: neither what people
wish, nor the spread, nor how many of its own tasks a node has. Hence replicas do not crowd where their image is, and
services that share one hardly do: a node that has everything gets two tasks more than the others at most.

    image 300 MiB: n1 has it, and 3 tasks; n2 lacks 20 MiB of it, and has 1; n3 lacks all, and has 1
    n1: 3 + 0    n2: 1 + ½    n3: 1 + 1½    → n2
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from protos import units
from protos.orch.v1 import objects_pb2 as pb

SMALL_BYTES = 16 << 20
"""What is less is fetched before anybody notices: some 0.15 s of a gigabit link."""
LARGE_BYTES = 256 << 20
"""What is more takes seconds."""

Amounts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Holders:
    """Which node has which blob, so that all nodes are asked at once: a blob's holders are the bits of one number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        """Of nodes; those that have gone leave theirs to others."""
        self._free: list[int] = []
        self._bits: dict[str, int] = {}

    def add(self, digest: str, node_id: str) -> None:
        """The node has it."""
        if node_id not in self._numbers:
            self._numbers[node_id] = self._free.pop() if self._free else len(self._numbers)
        self._bits[digest] = self._bits.get(digest, 0) | 1 << self._numbers[node_id]

    def remove(self, digest: str, node_id: str) -> None:
        """The node has it no more."""
        if node_id in self._numbers and (bits := self._bits.get(digest, 0)):
            self._bits[digest] = bits & ~(1 << self._numbers[node_id])
            if not self._bits[digest]:
                del self._bits[digest]

    def forget(self, node_id: str) -> None:
        """The node has gone, and what it had was removed before: another gets its number."""
        number = self._numbers.pop(node_id, None)
        if number is not None:
            self._free.append(number)

    def __contains__(self, digest: object) -> bool:
        return digest in self._bits

    def numbers(self, node_ids: Iterable[str]) -> Amounts:
        """What `where` calls these nodes."""
        return np.array([self._numbers.get(one, -1) for one in node_ids], dtype=np.int64)

    def where(self, digest: str, numbers: Amounts) -> Mask:
        """Which of the nodes have the blob."""
        size = len(self._numbers) + len(self._free)
        raw = self._bits.get(digest, 0).to_bytes(size // 8 + 1, "little")  # one bit more, for those without a number
        return np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little").astype(np.bool_)[numbers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """What each node would have to fetch, by row: bytes, and whether there is an image of unknown size among it."""

    size_bytes: Amounts
    unknown: Mask

    @property
    def halves(self) -> Amounts:
        """As how many halves of a task it counts: an odd number, so that one with more tasks never wins by its name.

        Example: 5 MiB → 0, 20 MiB → 1, 300 MiB → 3; an image of unknown size → 1.
        """
        known = (self.size_bytes >= SMALL_BYTES).astype(np.int64) + 2 * (self.size_bytes >= LARGE_BYTES)
        return np.maximum(known, self.unknown)

    def words(self, row: int) -> str:
        """Of one node, such as `20.5Mi to fetch`."""
        if self.unknown[row]:
            return "an image to fetch"
        size_bytes = int(self.size_bytes[row])
        return f"{units.about_bytes(size_bytes)} to fetch" if size_bytes else "nothing to fetch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """All that is known of who has what. `images_of`: the digests of a revision's images, by its id; `images`: what the
    cluster's images consist of, by digest.
    """

    images_of: Mapping[str, Collection[str]] = field(default_factory=lambda: MappingProxyType({}))
    images: Mapping[str, pb.ImageStatus] = field(default_factory=lambda: MappingProxyType({}))
    holders: Holders = field(default_factory=Holders)

    def having(self, images_of: Mapping[str, Collection[str]]) -> "Stock":
        """The same with these revisions as well."""
        return replace(self, images_of={**self.images_of, **images_of})

    def lacking(self, revision_id: str, numbers: Amounts) -> Lacking | None:
        """What nodes, by their numbers, lack of the images of a revision. None when that sets none of them apart."""
        sizes, manifests = self._parts(self.images_of.get(revision_id, ()))
        if not any(digest in self.holders for digest in (*sizes, *manifests)):
            return None
        size_bytes, unknown = np.zeros(len(numbers), dtype=np.int64), np.zeros(len(numbers), dtype=np.bool_)
        for digest, size in sizes.items():
            size_bytes += size * ~self.holders.where(digest, numbers)
        for digest in manifests:
            unknown |= ~self.holders.where(digest, numbers)
        found = Lacking(size_bytes=size_bytes, unknown=unknown)
        halves = found.halves
        return found if (halves != halves[:1]).any() else None

    def _parts(self, digests: Iterable[str]) -> tuple[dict[str, int], list[str]]:
        """The sizes of all blobs; and the manifests of images of which nobody has told what they consist of. Nodes tell
        of such a manifest when they have the image.
        """
        sizes: dict[str, int] = {}
        manifests: list[str] = []
        for digest in digests:
            if digest in self.images and self.images[digest].blobs:
                sizes.update({one.digest: one.size for one in self.images[digest].blobs})
            else:
                manifests.append(digest)
        return sizes, manifests


EMPTY = Stock()
