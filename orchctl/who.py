"""What a person is known by in this run: the folder with their certificate, chosen once, with the context.

The rule: it is asked for only when something is dialed, so that what needs no server needs no certificate.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl.errors import OrchctlError

if TYPE_CHECKING:
    from trust.folder import Material

_folder: ContextVar[Callable[[], Path | None]] = ContextVar("folder", default=lambda: None)
_used: ContextVar["Material | None"] = ContextVar("used", default=None)

LOGIN = "get a token from an admin of the cluster, and `orchctl login` with it"


@contextlib.contextmanager
def known_by(folder: Callable[[], Path | None]) -> Iterator[None]:
    """Inside the block one is known by what is in the folder; by nothing where it is None."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def material() -> "Material | None":
    """Key and certificate; None: there are none. OrchctlError when they cannot be used."""
    path = _folder.get()()
    if path is None:
        return None
    from trust.folder import Folder, NotTrusted

    try:
        own = Folder(path).load()
    except NotTrusted as error:
        raise OrchctlError(str(error), hint=LOGIN) from error
    if own.facts.not_after_ms <= time.time_ns() // 1_000_000:
        raise OrchctlError(f"the certificate of {own.identity} has expired", hint=LOGIN)
    _used.set(own)
    return own


def is_known() -> bool:
    """Whether something was dialed in this run with a certificate."""
    return _used.get() is not None


def is_aging() -> bool:
    """Whether something was dialed in this run with a certificate that has lived for half of its life."""
    own = _used.get()
    if own is None:
        return False
    return time.time_ns() // 1_000_000 * 2 > own.facts.not_before_ms + own.facts.not_after_ms


def described(path: Path | None) -> str:
    """For a list of contexts: `ann (admin)`; `-` for none."""
    if path is None:
        return "-"
    from trust.folder import Folder, NotTrusted

    try:
        who = Folder(path).load().identity
    except NotTrusted:
        return "? (log in again)"
    return f"{who.name} ({who.role})"
