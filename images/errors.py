"""What can go wrong with an image, said so that the caller knows what to do next.

::

    ImageError
    ├── InvalidReference   the name or digest is not written as one: tell the person
    ├── InvalidDockerfile  an instruction, or a file beside it, breaks a rule of its language: tell the person
    ├── BuildFailed        a command of a Dockerfile failed: tell the person
    ├── NotFound           this store does not hold it: import or fetch it
    ├── InvalidImage       a document, archive or layer breaks the rules: give up on this copy
    │   ├── DigestMismatch     the bytes are not the ones that were named: fetch again
    │   └── LimitExceeded      larger than a bound: raise the bound if the image is trusted
    ├── Unsupported        well-formed, but not something that we read: convert it
    ├── Busy               another process holds what we need: try again later
    └── StorageFailed      the disk said no (full, read-only, no extended attributes): repair the disk

Every message names the object (reference, digest or archive), the place in it (field or entry) and the remedy.
"""
# ruff: noqa: N818 - the names say what happened; that they are errors is said by the root of the tree

from __future__ import annotations


class ImageError(Exception):
    """The root of the tree: one line for people, no traceback needed."""


class InvalidReference(ImageError):
    """The text does not name an image or a digest."""


class InvalidDockerfile(ImageError):
    """A Dockerfile or a .dockerignore says what its language does not know; the message names file and line."""


class BuildFailed(ImageError):
    """A command of RUN ended with another code than 0; the message has its place, the code, and its last words."""


class NotFound(ImageError):
    """The store has no such image, blob or layer."""


class InvalidImage(ImageError):
    """The image breaks a rule of its format, or one of our safety rules."""


class DigestMismatch(InvalidImage):
    """Bytes differ from the digest or size under which they were announced."""


class LimitExceeded(InvalidImage):
    """A bound on bytes, entries, depth or ratio was passed."""


class Unsupported(ImageError):
    """A format that exists but that we do not read."""


class Busy(ImageError):
    """Somebody else held a lock for longer than we were willing to wait."""


class StorageFailed(ImageError):
    """The file system below the store refused an operation."""
