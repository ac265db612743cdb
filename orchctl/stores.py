"""The image store of this machine: where it is, and what is said when it refuses.

`images` knows no command line. Its errors become ours here, and nowhere else.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl import errors

if TYPE_CHECKING:
    from images.store import ImageStore

DEFAULT = Path("/var/lib/orch/images")
VARIABLE = "ORCH_IMAGE_STORE"


@contextlib.contextmanager
def opened(path: Path) -> "Iterator[ImageStore]":
    """The store below `path`, made when there is none; what goes wrong with it in the block is told as one line."""
    from images.store import ImageStore

    with told():
        yield ImageStore(path)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turns errors of `images` into errors of ours. A name that is none is wrong usage."""
    from images import errors as image_errors

    try:
        yield
    except image_errors.InvalidReference as error:
        raise errors.InvalidInput(str(error)) from error
    except image_errors.ImageError as error:
        raise errors.OrchctlError(str(error), hint=_hint(error)) from error


def _hint(error: Exception) -> str:
    if isinstance(error.__cause__, PermissionError):
        return f"run it as root, or choose a store of your own with --store DIR or {VARIABLE}"
    return ""
