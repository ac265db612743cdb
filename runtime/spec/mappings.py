"""Mappings of user and group ids: of the container's user namespace, and of a single bind mount.

The kernel's bounds are checked here (user_namespaces(7)): 340 lines for each kind of id, written at once into a page,
no id twice on either side.
"""

import itertools
from collections.abc import Sequence
from typing import Final

from runtime.fields import Fields
from runtime.spec.process import MAX_ID
from runtime.values import frozen

MAX_LINES: Final = 340
_PAGE_BYTES: Final = 4096


@frozen
class IdRange:
    """`size` ids from `inside` on are the host's ids from `outside` on."""

    inside: int
    outside: int
    size: int


@frozen
class IdMaps:
    """Both kinds of ids. The container's root is always among them."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]

    @property
    def root(self) -> tuple[int, int]:
        """The host's ids of the container's root."""
        uid, gid = outside(self.uids, 0), outside(self.gids, 0)
        assert uid is not None
        assert gid is not None
        return uid, gid


def outside(ranges: Sequence[IdRange], number: int) -> int | None:
    """The host's id for one of the container's; None when it has none."""
    for each in ranges:
        if each.inside <= number < each.inside + each.size:
            return each.outside + number - each.inside
    return None


def text(ranges: Sequence[IdRange]) -> str:
    """As /proc/PID/uid_map has it."""
    return "".join(f"{each.inside} {each.outside} {each.size}\n" for each in ranges)


def parse_text(table: str) -> tuple[IdRange, ...]:
    """Read /proc/PID/uid_map."""
    rows = (line.split() for line in table.splitlines())
    return tuple(IdRange(inside=int(row[0]), outside=int(row[1]), size=int(row[2])) for row in rows)


def parse_mappings(fields: Fields) -> IdMaps | None:
    """Read `uidMappings` and `gidMappings` of an object; raises InvalidSpec. None when it has neither."""
    uids, gids = (_ranges(fields, name) for name in ("uidMappings", "gidMappings"))
    if not uids and not gids:
        return None
    for name, ranges, other in (("uidMappings", uids, "gidMappings"), ("gidMappings", gids, "uidMappings")):
        if not ranges:
            raise fields.refuse(name, f"is required beside {other}")
        if outside(ranges, 0) is None:
            raise fields.refuse(name, "has no line for id 0, which the runtime sets the container up as; add one")
    return IdMaps(uids=uids, gids=gids)


def _ranges(fields: Fields, name: str) -> tuple[IdRange, ...]:
    items = fields.children(name)
    if not items:
        return ()
    if len(items) > MAX_LINES:
        raise fields.refuse(name, f"has {len(items)} lines; the kernel takes {MAX_LINES} at most")
    ranges = tuple(_range(item) for item in items)
    for side, starts in (
        ("containerID", sorted((each.inside, each.size) for each in ranges)),
        ("hostID", sorted((each.outside, each.size) for each in ranges)),
    ):
        for (first, size), (following, _) in itertools.pairwise(starts):
            if first + size > following:
                raise fields.refuse(name, f"{side} {following} is in two lines; every id may be there once")
    if len(text(ranges)) >= _PAGE_BYTES:
        raise fields.refuse(name, f"is longer than the {_PAGE_BYTES - 1} characters that the kernel takes; join lines")
    return ranges


def _range(fields: Fields) -> IdRange:
    found = IdRange(
        inside=fields.number("containerID", low=0, high=MAX_ID),
        outside=fields.number("hostID", low=0, high=MAX_ID),
        size=fields.number("size", low=1, high=MAX_ID + 1),
    )
    fields.finish()
    if max(found.inside, found.outside) + found.size > MAX_ID + 1:
        raise fields.refuse("size", f"{found.size} leads beyond the highest id {MAX_ID}")
    return found
