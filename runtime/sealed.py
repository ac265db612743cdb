"""Copies of an executable in memory that nobody can write to.

A container may be told to execute /proc/self/exe, which then is our interpreter, and may reach the file behind it
later (CVE-2019-5736). So whatever of ours sets up a process of a container runs from such a copy.
"""

import fcntl
import os
import sys

NEEDED_BY = frozenset({"create", "run", "exec"})
"""The command's verbs that set up processes."""

_NAME = "orch-runtime"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def copy(path: str) -> int:
    """A memory file with the same content that nobody can change any more."""
    made = os.memfd_create(_NAME, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    with open(path, "rb", buffering=0) as source:
        while os.sendfile(made, source.fileno(), None, 1 << 30):
            pass
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, _SEALS)
    return made


def is_sealed() -> bool:
    """Whether this process is such a copy."""
    return os.readlink("/proc/self/exe").startswith(f"/memfd:{_NAME}")


def ensure() -> None:
    """Go on as a sealed copy of this interpreter, with the same arguments; returns when that is the case."""
    if is_sealed():
        return
    made = copy("/proc/self/exe")
    # The first argument tells the interpreter where its library is, so it stays.
    os.execve(f"/proc/self/fd/{made}", [sys.executable, *sys.orig_argv[1:]], os.environ)
