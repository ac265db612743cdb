"""The image store of this machine: where it is, and what is said when it refuses.

`images` knows no command line. Its errors become ours here, and nowhere else.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl import errors

if TYPE_CHECKING:
    from images.image import Image
    from images.manifest import Platform
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
        notes = getattr(error, "__notes__", ())  # such as what the mirrors of a registry said
        raise errors.OrchctlError(str(error), hint=_hint(error), details=notes) from error


def _hint(error: Exception) -> str:
    if isinstance(error.__cause__, PermissionError):
        return f"run it as root, or choose a store of your own with --store DIR or {VARIABLE}"
    return ""


def find(store: "ImageStore", text: str, platform_text: str = "") -> "Image":
    """The image of a name, a digest or the first figures of one."""
    from images import lookup

    return lookup.find(store, text, platform=platform(platform_text))


def digest_of(store: "ImageStore", text: str) -> str:
    """The digest that a name stands for, which may be that of an index for several platforms."""
    from images import lookup

    return lookup.digest_of(store, text)


def platform(text: str) -> "Platform | None":
    """`linux/arm64/v8` → the platform; None for nothing, which means this machine's."""
    from images import manifest

    parts = text.split("/") if text else []
    if not parts:
        return None
    if not 2 <= len(parts) <= 3 or not all(part.isalnum() for part in parts):
        raise errors.InvalidInput(f"not a platform: {text!r}", hint="write it like linux/amd64 or linux/arm/v7")
    return manifest.Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")
