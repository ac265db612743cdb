"""The agent's memory in files; see `layout` for which they are.

Two ways of writing. What must outlive a power cut is written beside, flushed and renamed. A task's record need not:
its container does not outlive one either. It is written in place by one write(2) of one page, which a `kill -9` never
halves, because a rename over a file makes ext4 write it out, which takes a millisecond, ten times for every task.
"""

import asyncio
import errno
import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from agent.adapters import trees, whole
from agent.adapters.layout import Layout
from agent.core import record
from agent.core.record import Record
from agent.errors import Temporary
from agent.ports import Memory
from protos.orch.v1 import dispatcher_pb2 as dpb

log = structlog.get_logger()

PAGE_BYTES = 4096
_FRESH = ".new"
"""What a volume's name has behind it while it is made; no name has a dot."""


class FileDisk:
    """A Disk below one folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        for folder in (layout.state, layout.tasks, layout.images, layout.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Also when somebody else made it: on disk, what a container's root makes is root's, setuid and all.
            folder.chmod(0o700)

    def node_id(self) -> str:
        """The id that this node was given when its agent first started here."""
        return whole.node_id(self._layout)

    async def load(self) -> Memory:
        """A file that cannot be read is as good as none: what it told is told again by the leader."""
        assignment = dpb.SavedAssignment()
        try:
            assignment.ParseFromString(self._layout.assignment.read_bytes())
        except FileNotFoundError:
            pass
        except DecodeError as error:
            log.warning("the saved assignment is damaged; waiting for the leader's", error=str(error))
            assignment.Clear()
        return Memory(assignment=assignment, records=self._records(), last_addresses=self._last_addresses())

    async def save_assignment(self, assignment: dpb.SavedAssignment) -> None:
        await asyncio.to_thread(whole.replace, self._layout.assignment, assignment.SerializeToString())

    async def save_record(self, task_id: str, value: Record) -> None:
        await _save(self._layout.record(task_id), record.to_json(value).encode())

    async def save_last_addresses(self, addresses: Sequence[str]) -> None:
        await _save(self._layout.last_address, " ".join(addresses).encode())

    async def make_volumes(self, task_id: str, names: Iterable[str]) -> str:
        folder = self._layout.volumes(task_id)
        _make_volumes(folder, names)
        return str(folder)

    async def remove_volumes(self, task_id: str) -> None:
        await asyncio.to_thread(trees.remove, self._layout.volumes(task_id))

    async def forget(self, task_id: str) -> None:
        await asyncio.to_thread(trees.remove, self._layout.task(task_id))

    def _last_addresses(self) -> tuple[str, ...]:
        try:
            words = self._layout.last_address.read_text().split()
            return tuple(str(ipaddress.ip_address(word)) for word in words)
        except FileNotFoundError:
            return ()
        except ValueError as error:
            log.warning("the note of the last address is damaged", error=str(error))
            return ()

    def _records(self) -> Mapping[str, Record]:
        found = {}
        for folder in sorted(self._layout.tasks.iterdir()):
            found[folder.name] = Record()
            try:
                found[folder.name] = record.from_json(self._layout.record(folder.name).read_text())
            except FileNotFoundError:
                continue
            except ValueError as error:
                log.warning("a task's record is damaged", task=folder.name, error=str(error))
        return found


async def _save(path: Path, data: bytes) -> None:
    if not _overwrite(path, data):
        await asyncio.to_thread(whole.replace, path, data)


def _overwrite(path: Path, data: bytes) -> bool:
    """Whether it was written in place: neither it nor what is there already may be longer than a page.

    Blanks fill the page, so that a shorter record leaves nothing of a longer one; JSON does not mind them.
    """
    if len(data) > PAGE_BYTES:
        return False
    try:
        fd = _opened(path)
        try:
            if os.fstat(fd).st_size > PAGE_BYTES:
                return False
            if os.write(fd, data.ljust(PAGE_BYTES)) != PAGE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
    except OSError as error:
        raise whole.failed(path, error) from error
    return True


def _opened(path: Path) -> int:
    """Its folder is made when it is not there, which is once in the life of a task."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _make_volumes(folder: Path, names: Iterable[str]) -> None:
    """Each is there whole or not at all, since what its containers made of its mode and owner later is theirs."""
    try:
        for name in names:
            if not (folder / name).exists():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                fresh = folder / f"{name}{_FRESH}"
                fresh.mkdir(mode=0o700, exist_ok=True)
                fresh.chmod(0o777)
                fresh.rename(folder / name)
    except OSError as error:
        raise Temporary(f"cannot make volumes in {folder}: {error.strerror}", reason="DiskFailed") from error
