"""The process that outlives the supervisor and sweeps up after it, even after `kill -9`.

Its standard input is a pipe that only the supervisor can write to: the end of the pipe is the end of the supervisor.
The locks that it inherits tell everybody that the cluster is not gone yet, and that its ranges are not free.
"""

import argparse
import signal
import sys
from pathlib import Path
from typing import Final

from deploy.local import claims, errors, record, sweep

ENDED_IN_ORDER: Final = b"remove"
"""What the supervisor writes last when nobody will want to read the logs any more."""


def main() -> None:
    """Waits, sweeps and ends."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.sweeper", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    last_word = sys.stdin.buffer.read()
    the_record = record.load(folder)
    if the_record is None:
        return
    try:
        sweep.sweep(the_record)
    except errors.LocalError as error:
        print(f"sweeper: {error}", flush=True)
        return
    claims.forget(the_record.plan.name, the_record.plan.lan)
    if last_word == ENDED_IN_ORDER:
        sweep.remove_folder(folder)


if __name__ == "__main__":
    main()
