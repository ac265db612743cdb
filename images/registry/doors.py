"""One door to all registries for a program that lives long: opened when the first is asked, kept while it fits.

Two rules. Connections, tokens and the bounds on transfers are shared for as long as the files that say how registries
are spoken to are what they were. And nothing is remembered of a failure that a person may repair elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from images.registry import config, credentials, errors, registries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

_Stamps = dict["Path", tuple[int, int, int] | None]


@dataclass(slots=True, kw_only=True)
class _Opened:
    """Registries as some files describe them; closed when it is no longer the one to use and the last user has left."""

    shared: registries.Registries
    stamps: _Stamps
    users: int = 0
    closing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)


class Door:
    """`settings`: the file with registries, mirrors and CAs; `kept`: credentials as `orchctl image login` keeps them.
    None: the usual files. What is changed in them counts from the next `opened` on. `close` it in the end.
    """

    def __init__(self, settings: Path | None = None, kept: Path | None = None) -> None:
        self._settings = settings
        self._kept = kept
        self._opened: _Opened | None = None
        self._transfers: registries.Transfers | None = None
        """Bounds outlive what was opened: what is on its way through the one before counts too."""
        self._opening = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[registries.Registries]:
        """The registries as the files describe them now. Raises `BadConfiguration` with the file."""
        mine = await self._current()
        mine.users += 1
        try:
            yield mine.shared
        except (errors.NotFound, errors.Unavailable):
            raise  # nothing on this machine could make a difference
        except errors.RegistryError:
            # A certificate, a keychain or the registry itself may be repaired: the next one starts without memories.
            self._opened = None if self._opened is mine else self._opened
            raise
        finally:
            mine.users -= 1
            if mine is not self._opened:
                await _close_unused(mine)

    async def close(self) -> None:
        """Nobody asks any more."""
        mine, self._opened = self._opened, None
        await _close_unused(mine)

    async def _current(self) -> _Opened:
        async with self._opening:
            if self._opened is None or self._opened.stamps != _stamps(self._opened.stamps):
                before, self._opened = self._opened, None
                await _close_unused(before)
                settings, kept = config.load(self._settings), credentials.DockerConfig(self._kept)
                files = (self._settings or config.DEFAULT_PATH, kept.path, *_files(settings))
                shared = registries.Registries(settings, kept=kept, transfers=self._transfers)
                mine = _Opened(shared=shared, stamps=_stamps(files))
                await mine.closing.enter_async_context(shared)
                self._opened, self._transfers = mine, shared.transfers
            return self._opened


async def _close_unused(mine: _Opened | None) -> None:
    if mine is not None and not mine.users:
        await mine.closing.aclose()


def _files(settings: config.Config) -> Iterable[Path]:
    for one in settings.registries.values():
        yield from (path for path in (one.ca, one.client_certificate, one.client_key) if path)


def _stamps(files: Iterable[Path]) -> _Stamps:
    """By which one sees that a file has changed; None for one that is not there."""
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
