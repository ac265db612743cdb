# ruff: noqa: N818 - the types are named after what is wrong, as the design's vocabulary has them
"""Everything that the runtime refuses or fails at. The type says what to do next.

    ContainerError
    ├── InvalidSpec             the configuration is wrong or asks for what is not supported: tell the user
    ├── SetupFailed             a step of creation failed on this machine; `step` and `errno` say which and why
    │   ├── ProgramNotFound         as a shell has it: exit code 127
    │   └── ProgramNotExecutable    exit code 126
    ├── UnknownContainer        no such id below this state folder
    ├── ContainerExists         the id is taken: delete that container first
    ├── WrongStatus             the verb does not fit the container's status: look again
    ├── PeerGone                the launcher or monitor at the other end has ended: look at the disk
    └── ProtocolError           the other end does not speak this protocol

Errors cross process borders as JSON (`to_wire`, `from_wire`) and keep their type.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Self


class ContainerError(Exception):
    """The root of the tree; raised itself only for a type that the other end knows and we do not."""

    exit_code = 125

    def __init__(self, message: str, *, step: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.errno = errno


class InvalidSpec(ContainerError):
    """The configuration is wrong; the message starts with the field's full path."""


class SetupFailed(ContainerError):
    """A step failed while the container, or a process in it, was being made."""

    @classmethod
    def at(cls, step: str, error: OSError) -> Self:
        """The failure of `step`, told in words: "mount /proc: fsconfig create: Permission denied"."""
        words = error.strerror or str(error)
        where = f" {os.fsdecode(error.filename)!r}" if isinstance(error.filename, str | bytes) else ""
        return cls(f"{step}: {words}{where}", step=step, errno=error.errno or 0)


class ProgramNotFound(SetupFailed):
    """The first argument names no file in the container."""

    exit_code = 127


class ProgramNotExecutable(SetupFailed):
    """The file is there but the kernel cannot execute it."""

    exit_code = 126


class UnknownContainer(ContainerError):
    """There is no container with this id."""


class ContainerExists(ContainerError):
    """There is already a container with this id."""


class WrongStatus(ContainerError):
    """The verb needs another status of the container."""


class PeerGone(ContainerError):
    """The process at the other end of the socket has ended."""


class ProtocolError(ContainerError):
    """A message is malformed, too large, or out of place."""


_TYPES: dict[str, type[ContainerError]] = {
    kind.__name__: kind
    for kind in (
        InvalidSpec,
        SetupFailed,
        ProgramNotFound,
        ProgramNotExecutable,
        UnknownContainer,
        ContainerExists,
        WrongStatus,
        PeerGone,
        ProtocolError,
    )
}


def to_wire(error: ContainerError) -> dict[str, Any]:
    """The error as a JSON object; the message is cut at 2,000 characters so that it fits into one packet."""
    return {
        "type": type(error).__name__,
        "message": error.message[:2000],
        "step": error.step[:200],
        "errno": error.errno,
    }


def from_wire(fields: dict[str, Any]) -> ContainerError:
    """The error that the other end raised."""
    kind = _TYPES.get(str(fields.get("type")), ContainerError)
    return kind(str(fields.get("message")), step=str(fields.get("step", "")), errno=int(fields.get("errno", 0)))


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Give an OSError the name of the step that it stopped."""
    try:
        yield
    except OSError as error:
        raise SetupFailed.at(name, error) from error
