"""Digests: the only strings from outside that may become file names.

The rule: a digest is checked here, against one regular expression, before any use as a path or in a URL.
"""

from __future__ import annotations

import hashlib
import re

from images import errors

PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: object) -> bool:
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def check(text: object, *, what: str = "digest") -> str:
    """Return the digest unchanged, or raise `InvalidReference` that names `what`."""
    if isinstance(text, str) and _DIGEST.fullmatch(text):
        return text
    raise errors.InvalidReference(
        f"{what} {text!r:.100} is not a digest: expected sha256: and 64 lower-case hex digits"
    )


def hex_of(digest: str) -> str:
    """The 64 digits: the file name of a blob or of a layer."""
    return check(digest).removeprefix(PREFIX)


def of_bytes(data: bytes) -> str:
    return PREFIX + hashlib.sha256(data).hexdigest()


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Name each stack of layers, bottom to top (OCI image specification, "Layer ChainID").

    chain(1) = diff(1); chain(n) = sha256(chain(n-1) + " " + diff(n)). Two images that start with the same layers
    share the chain ids, and so the unpacked folders, of that common start.
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(of_bytes(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
