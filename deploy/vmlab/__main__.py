"""`python -m deploy.vmlab`: what `make vmlab`, `make vmlab-ssh` and `make vmlab-down` do."""

import argparse
import os
import signal
import sys
import time
from typing import NoReturn

from deploy.local import errors
from deploy.vmlab import cluster, keeping, laboratory, plan


def main() -> int:
    """The exit code."""
    signal.signal(signal.SIGTERM, _interrupted)
    options = _parser().parse_args()
    try:
        return _do(options)
    except errors.LocalError as error:
        for line in error.detail.splitlines():
            print(f"  | {line}", file=sys.stderr)
        print(f"vmlab: {error}", *([f"  {error.hint}"] if error.hint else []), sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvmlab: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.vmlab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="boot the machines, and leave them running")
    verbs.add_parser("down", help="end them, and remove what they have written")
    ssh = verbs.add_parser("ssh", help="a shell on a machine, or a command there")
    ssh.add_argument("machine", type=int)
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def _do(options: argparse.Namespace) -> int:
    places = plan.places()
    match options.verb:
        case "up":
            _up(places, Progress().say)
        case "down":
            print("vmlab: it is down" if keeping.end(places) else "vmlab: none was up")
        case "ssh":
            _become_ssh(laboratory.existing(places), options.machine, options.command)
        case verb:
            raise AssertionError(f"argparse lets no {verb} pass")
    return 0


def _up(places: plan.Places, say: laboratory.Say) -> None:
    """With a cluster and an example. What breaks off on the way leaves nothing running."""
    begun = laboratory.up(places, owner=os.getpid(), say=say)
    try:
        cluster.make(begun, say=say)
        begun.release()
    except BaseException:
        keeping.end(places)
        raise
    print("\nA way in:  make vmlab-ssh N=1, where `orchctl` is root's")
    print("The end:   make vmlab-down")


def _become_ssh(up: laboratory.Laboratory, number: int, command: list[str]) -> NoReturn:
    try:
        machine = plan.machine(number)
    except ValueError as error:
        raise errors.LocalError(str(error)) from None
    words = up.ssh(machine, *command)
    os.execvp(words[0], words)


class Progress:
    """Lines with the seconds since the beginning before them."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:5.0f} s] {text}", flush=True)


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
