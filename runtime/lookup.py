"""Find the program in the container, and say what a shell would say when that fails (127 or 126)."""

import errno
import os
import stat
from typing import Final

from runtime import errors

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(name: str, variables: dict[str, str]) -> str:
    """The path of the program, as the final user sees it; raises what a shell would tell with 127 or 126."""
    if "/" in name:
        _check(name)
        return name
    refused = None
    for folder in variables.get("PATH", DEFAULT_PATH).split(":"):
        path = f"{folder or '.'}/{name}"
        try:
            _check(path)
        except errors.ProgramNotFound:
            continue
        except errors.ProgramNotExecutable as error:
            refused = refused or error
            continue
        return path
    searched = variables.get("PATH", DEFAULT_PATH)
    missing = errors.ProgramNotFound(
        f"program {name!r} is not in the container's PATH ({searched})", step="find program", errno=errno.ENOENT
    )
    raise refused or missing


def _check(path: str) -> None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        message = f"program {path!r} does not exist in the container"
        raise errors.ProgramNotFound(message, step="find program", errno=errno.ENOENT) from None
    except OSError as error:
        message = f"program {path!r}: {error.strerror}"
        raise errors.ProgramNotExecutable(message, step="find program", errno=error.errno or 0) from None
    if not stat.S_ISREG(status.st_mode):
        message = f"program {path!r} is not a regular file"
        raise errors.ProgramNotExecutable(message, step="find program", errno=errno.EACCES)
    if not os.access(path, os.X_OK):
        message = f"program {path!r} is not executable by this user; chmod +x it in the image"
        raise errors.ProgramNotExecutable(message, step="find program", errno=errno.EACCES)


def unexecutable(path: str, error: OSError) -> errors.SetupFailed:
    """Why execve(2) refused a file that `find` had found."""
    if error.errno == errno.ENOENT:
        message = f"program {path!r} is there, but its interpreter or dynamic loader is not in the container"
        return errors.ProgramNotFound(message, step="exec", errno=errno.ENOENT)
    hint = "; it may be for another architecture, or a script without #!" if error.errno == errno.ENOEXEC else ""
    message = f"program {path!r} cannot be executed: {error.strerror}{hint}"
    return errors.ProgramNotExecutable(message, step="exec", errno=error.errno or 0)
