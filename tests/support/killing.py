"""Runs a command that is killed, with everything that it has started, right before a file is put in place or removed.

As on a machine that loses its power there: whoever goes through these changes one by one has seen every state of whole
files that may be left. Each interpreter below the command counts in one file, by a hook that it finds as its
`sitecustomize`.
"""

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 60
_HOOK = """
import os, signal, sys

BELOW, COUNT, LAST = os.environ["KILLED_BELOW"], os.environ["KILLED_COUNT"], int(os.environ["KILLED_AT"])
FOLDER = {"os.rename": 2, "os.remove": 1, "os.rmdir": 1}  # where the event has its dir_fd

def look(event, arguments):
    if event not in FOLDER:
        return
    folder = arguments[FOLDER[event]]
    path = os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd(), os.fspath(arguments[0]))
    if not path.startswith(BELOW):
        return
    count = os.open(COUNT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(count, b".")
    if os.fstat(count).st_size == LAST:
        os.killpg(0, signal.SIGKILL)
    os.close(count)

sys.addaudithook(look)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Killer:
    """Kills before the change of this number, from 1. `folder`: where its own files go."""

    at: int
    folder: Path

    def kills(self, command: Sequence[str], below: Path, environ: Mapping[str, str] = os.environ) -> bool:
        """Whether the command was killed at its changes below a folder; else it has come to a good end before."""
        self.folder.mkdir(parents=True)
        (self.folder / "sitecustomize.py").write_text(_HOOK)
        told = {"KILLED_BELOW": f"{below}/", "KILLED_COUNT": str(self.folder / "count"), "KILLED_AT": str(self.at)}
        path = f"{self.folder}{os.pathsep}{environ.get('PYTHONPATH', '')}"
        done = subprocess.run(
            command,
            env={**environ, **told, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            start_new_session=True,  # the group that is killed is the command's own
        )
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        return done.returncode != 0


def killers(folder: Path) -> Iterator[Killer]:
    """One for each change; whoever takes them ends when one did not kill."""
    for at in itertools.count(1):
        assert at < 100, "a command that changes so much has no end"
        yield Killer(at=at, folder=folder / f"killer-{at}")
