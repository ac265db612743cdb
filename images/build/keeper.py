"""The process that sees to it that a build which is killed leaves nothing running. Started by `containers`.

It holds the lock on the build's folder and waits for the end of a pipe whose other end only the builder has. Then it
waits for the launcher, which ends with the builder, so that nothing new begins; removes every container of the build,
and the build's folder, in which secrets lie; and ends. A build that ended well has left it nothing to do.

Before that it says in one line whether containers can have users of their own here: to find out takes a fork, which
the builder, with its threads, must not do.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path

from images import scratch
from runtime import client, errors, state, userprobe

_LAUNCHER_END_S = 30.0


def remove_all(root: str) -> None:
    """Kill and remove every container below a state folder; what cannot be removed stays for the next build."""
    for name in state.names(root):
        with contextlib.suppress(errors.ContainerError, OSError):
            client.delete(root, name, force=True)


def main() -> None:
    """Arguments: state folder, folder to probe, first id, the pipe's descriptor, the launcher's pidfd."""
    root, probe, first_id, pipe, launcher = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    why_not = userprobe.why_not(f"{probe}/layers", f"{probe}/own", first_id=int(first_id))
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{why_not}\n".encode())
    os.close(1)
    while os.read(int(pipe), 1):
        pass
    select.select([int(launcher)], [], [], _LAUNCHER_END_S)
    remove_all(root)
    folder = Path(root).parent
    # What knows of a container that could not be removed stays with its state for the next build; no secret does.
    scratch.remove(folder / "files" if state.names(root) else folder)


if __name__ == "__main__":
    main()
