"""What parts of a configuration were read as, where they come again and again: comparing is faster than reading.

Nothing is kept but what is read inside `learning()`: the launcher reads the default configuration there before it
forks. One rule: what is known at a place answers only for an object that is equal to it as a whole.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from runtime.fields import Fields

T = TypeVar("T")

_known: Final[dict[str, list[tuple[dict[str, Any], Any]]]] = {}
_learning: Final[list[bool]] = []


@contextlib.contextmanager
def learning() -> Iterator[None]:
    """Keep what is read in this block."""
    _learning.append(True)
    try:
        yield
    finally:
        _learning.pop()


def read(fields: Fields, of: Callable[[Fields], T]) -> T:
    """What `of` reads from an object, all of which it takes; or what it read from an equal one at the same place."""
    for fields_then, value in _known.get(fields.path, ()):
        if fields.are(fields_then):
            found: T = value
            return found
    if not _learning:
        return of(fields)
    as_given = copy.deepcopy(fields.left())
    value = of(fields)
    _known.setdefault(fields.path, []).append((as_given, value))
    return value
