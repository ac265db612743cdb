"""Removes folders that containers have written to: however deep they made them, and never what a link leads to."""

from pathlib import Path

from agent.errors import Temporary
from images import errors, scratch


def remove(folder: Path) -> None:
    """One that is gone already is no error. Blocks. Raises Temporary."""
    try:
        scratch.remove(folder)
    except errors.StorageFailed as error:
        raise Temporary(str(error), reason="DiskFailed") from error
