"""The agent's memory in files. Each is replaced whole; see `layout` for which they are."""

import asyncio
import os
import secrets
import shutil
import string
from collections.abc import Mapping
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from agent.adapters.layout import Layout
from agent.core import record
from agent.core.record import Record
from agent.errors import Temporary
from agent.ports import Memory
from protos.orch.v1 import dispatcher_pb2 as dpb

log = structlog.get_logger()


class FileDisk:
    """A Disk below one folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        for folder in (layout.state, layout.tasks, layout.images, layout.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def node_id(self) -> str:
        """The id that this node was given when its agent first started here."""
        try:
            return self._layout.node.read_text().strip()
        except FileNotFoundError:
            node_id = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(16))
            _replace(self._layout.node, f"{node_id}\n".encode(), durable=True)
            return node_id

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
        return Memory(assignment=assignment, records=self._records())

    async def save_assignment(self, assignment: dpb.SavedAssignment) -> None:
        data = assignment.SerializeToString()
        await asyncio.to_thread(_replace, self._layout.assignment, data, durable=True)

    async def save_record(self, task_id: str, value: Record) -> None:
        """Not flushed to the disk itself: a machine that loses power loses the containers as well."""
        path = self._layout.record(task_id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _replace(path, record.to_json(value).encode(), durable=False)

    async def forget(self, task_id: str) -> None:
        await asyncio.to_thread(_remove, self._layout.task(task_id))

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


def _replace(path: Path, data: bytes, *, durable: bool) -> None:
    beside = path.with_name(f"{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
        if durable:
            _flush_folder(path.parent)
    except OSError as error:
        raise Temporary(f"cannot write {path}: {error.strerror}; make room on the disk", reason="DiskFailed") from error


def _flush_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Temporary(f"cannot remove {folder}: {error}", reason="DiskFailed") from error
