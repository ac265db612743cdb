"""Files that are there completely or not at all, and the first of them: the node's id.

The rule: nothing is imported here that takes time, since whoever joins a machine to a cluster needs its id, and nothing
else of the agent.
"""

import os
import secrets
import string
from pathlib import Path

from agent.adapters.layout import Layout
from agent.errors import Temporary


def node_id(layout: Layout) -> str:
    """The id that this node has, or is given now. Raises Temporary."""
    try:
        return layout.node.read_text().strip()
    except FileNotFoundError:
        made = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(16))
        replace(layout.node, f"{made}\n".encode())
        return made


def replace(path: Path, data: bytes) -> None:
    """Writes it beside, flushes and renames it: it outlives a power cut. Raises Temporary."""
    beside = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise failed(path, error) from error


def failed(path: Path, error: OSError) -> Temporary:
    """What is said when a file cannot be written."""
    return Temporary(f"cannot write {path}: {error.strerror}; make room on the disk", reason="DiskFailed")


def _flush_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
