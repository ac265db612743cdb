"""What is on disk about a container: `<root>/<id>/{config,state,exit}.json` and `monitor.sock`.

    config.json   the OCI configuration as it was asked for
    state.json    written by the monitor when the container is created, and when it is started
    exit.json     written by the monitor as its last act

Each file has one writer, the monitor, and is replaced whole. The status is read, not stored: a container whose
exit.json is there, or whose monitor is gone, is stopped.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from runtime import cgrouppath, errors, values
from runtime.values import frozen

STATE_FILE, EXIT_FILE, CONFIG_FILE, SOCKET_FILE = "state.json", "exit.json", "config.json", "monitor.sock"
GATE_FILE: Final = "start.sock"
SPECIFICATION: Final = "1.2.0"
"""Of the runtime-spec."""

_RESERVED_BYTES: Final = 512
_STAT_BYTES: Final = 4096
_ID: Final = re.compile(r"[A-Za-z0-9_+.-]{1,200}")


@frozen
class State:
    """state.json. Start times are field 22 of /proc/PID/stat: with them a pid names one process for ever."""

    id: str
    status: str  # creating (without a monitor only), created, running; stopped is added by `load`
    pid: int
    pid_start: int
    monitor_pid: int  # 0: it has none (`unattended`)
    monitor_start: int
    bundle: str
    cgroups_path: str
    created_ns: int
    started_ns: int


@frozen
class Exit:
    """exit.json. A process that ended by signal N has the exit code 128 + N, as in a shell."""

    exit_code: int
    signal: int
    oom_killed: bool
    oom_kills: int
    finished_at_ns: int
    lost_log_bytes: int = 0
    memory_limit_bytes: int | None = None  # that was in force when processes were killed for memory


def folder(root: str, container: str) -> str:
    """The container's folder; raises InvalidSpec for an id that is no file name."""
    if not _ID.fullmatch(container) or container in {".", ".."}:
        raise errors.InvalidSpec(f"id: {container!r} must be 1 to 200 letters, digits, '_', '+', '-' or '.'")
    return os.path.join(root, container)


def names(root: str) -> list[str]:
    """The folders of containers, whole or not; those whose names begin with "@" are the runtime's own."""
    try:
        return sorted(name for name in os.listdir(root) if not name.startswith("@"))
    except FileNotFoundError:
        return []


def default_cgroups_path(container: str) -> str:
    """The cgroup of a container whose configuration names none. Users have ids of containers of their own."""
    user = os.geteuid()
    return f"{cgrouppath.PARENT}-{user}/{container}" if user else f"{cgrouppath.PARENT}/{container}"


def describe(
    container: str, status: str, *, pid: int | None, bundle: str, annotations: Mapping[str, str], root: str = ""
) -> dict[str, Any]:
    """What hooks and agents get (runtime.md, "State"); `root`: where its tree stands in its mount namespace."""
    known: dict[str, Any] = {"ociVersion": SPECIFICATION, "id": container, "status": status}
    if pid is not None:
        known["pid"] = pid
    known |= {"bundle": bundle, "annotations": dict(annotations)}
    if root:
        known["root"] = root
    return known


def write(path: str, value: Any) -> None:
    """Replace a file in one step, so that a reader sees the old one or the new one."""
    write_beside(path, value)
    put_in_place(path)


def write_beside(path: str, value: Any) -> None:
    """The first half of `write`: everything that takes time or can fail."""
    write_new(f"{path}.new", value)


def write_new(path: str, value: Any) -> None:
    """Write a file that nobody reads yet, into the space that `reserve` took if it did. Bytes are its text."""
    if not isinstance(value, bytes):
        value = text(values.asdict(value) if isinstance(value, State | Exit) else value).encode()
    _write_bytes(path, value)


def text(value: Any) -> str:
    """The content of a file of ours."""
    return json.dumps(value)


def write_text(path: str, content: str) -> None:
    """Likewise, when its text is known."""
    _write_bytes(path, content.encode())


def _write_bytes(path: str, data: bytes) -> None:
    with errors.step("write state"):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, f"{path}: {os.strerror(errno.ENOSPC)}")
            os.ftruncate(fd, len(data))  # after the write: what `reserve` holds must not be given back before
        finally:
            os.close(fd)


def reserve(path: str) -> None:
    """Take the space of a file that must be written later, even when the disk is full by then."""
    with errors.step("write state"):
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b" " * _RESERVED_BYTES)
        finally:
            os.close(fd)


def put_in_place(path: str) -> None:
    """The second half of `write`."""
    os.rename(f"{path}.new", path)


def load(root: str, container: str) -> State:
    """The state with the status as it is now; raises UnknownContainer."""
    where = folder(root, container)
    fields = _read(os.path.join(where, STATE_FILE))
    if fields is None:
        raise errors.UnknownContainer(f"container {container}: does not exist below {root}")
    state = State(**fields)
    if not state.monitor_pid:
        return values.replace(state, status=_unattended_status(where, state))
    alive = process_start(state.monitor_pid) == state.monitor_start
    if alive and not os.path.exists(os.path.join(where, EXIT_FILE)):
        return state
    return values.replace(state, status="stopped")


def _unattended_status(where: str, state: State) -> str:
    """Without a monitor the first process tells by being there, and its gate by having been taken away."""
    if process_start(state.pid) != state.pid_start:
        return "stopped"
    gone = state.status == "created" and not os.path.exists(os.path.join(where, GATE_FILE))
    return "running" if gone else state.status


@contextlib.contextmanager
def locked(root: str, container: str) -> Iterator[int]:
    """One verb at a time for a container; raises UnknownContainer when it is gone, or goes while this waits.

    Yields the descriptor that holds the lock: a fork that outlives the verb must close it, or it holds it too.
    """
    where = folder(root, container)
    unknown = errors.UnknownContainer(f"container {container}: does not exist below {root}")
    try:
        # The folder is its own lock: it cannot be forgotten when the container is removed.
        fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise unknown from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not os.fstat(fd).st_nlink:
            raise unknown
        yield fd
    finally:
        os.close(fd)


def load_exit(root: str, container: str) -> Exit | None:
    """How the container ended; None while it runs, and when its monitor was killed before it could say."""
    fields = _read(os.path.join(folder(root, container), EXIT_FILE))
    return None if fields is None else Exit(**fields)


def load_config(folder: str, *, naming: str = "") -> dict[str, Any]:
    """The configuration that a container was asked for with; empty when it is not there, or not whole.

    Likewise when it has nothing of the name that is looked for, which is seen without reading it as a whole.
    """
    try:
        return _read(os.path.join(folder, CONFIG_FILE), naming=naming) or {}
    except ValueError:
        return {}


def _read(path: str, *, naming: str = "") -> dict[str, Any] | None:
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.readall() or b""
    except (FileNotFoundError, NotADirectoryError):
        return None
    if naming.encode() not in text and b"\\" not in text:  # which any letter of a name may be written with
        return None
    fields = json.loads(text)
    assert isinstance(fields, dict), path
    return fields


def remove_folder(folder: str) -> None:
    """Remove a container's folder; nothing to remove is no error."""
    try:
        for entry in os.scandir(folder):
            os.unlink(entry.path)
        os.rmdir(folder)
    except FileNotFoundError:
        return


def process_start(pid: int, *, zombie: bool = False) -> int:
    """When a process started, in clock ticks since boot; 0 when there is none. A zombie counts only if asked for."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, _STAT_BYTES)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text[text.rindex(b")") + 2 :].split()
    return 0 if fields[0] in {b"Z", b"X"} and not zombie else int(fields[19])
