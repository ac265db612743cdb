"""`python -m deploy.demo`: exit code 0 only if every step was seen to hold."""

import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from deploy.demo import stage, tour
from deploy.local import cluster, errors, preflight, record
from orchctl.errors import OrchctlError


def main() -> int:
    """The exit code."""
    signal.signal(signal.SIGTERM, _interrupted)
    began = time.monotonic()
    name = f"demo-{secrets.token_hex(2)}"  # several demos may run on a machine
    try:
        preflight.check(name=name, nodes=tour.NODES)
    except errors.LocalError as error:
        print(f"demo: {error}\n  {error.hint}", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="orch-demo-"))
    the_stage = stage.Stage(folder)
    os.environ["ORCH_CONFIG"] = the_stage.environment["ORCH_CONFIG"]
    code = 1
    try:
        code = _walk(the_stage, name)
    finally:
        code = _clear_up(folder) or code
    if code == 0:
        print(f"\nEvery step held. It took {time.monotonic() - began:.0f} s.")
    return code


def _clear_up(folder: Path) -> int:
    try:
        cluster.down(folder)
        if folder.exists():
            folder.rmdir()
    except (errors.LocalError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def _walk(the_stage: stage.Stage, name: str) -> int:
    try:
        tour.Tour(the_stage, name=name).run()
    except (stage.NotSeen, errors.LocalError, OrchctlError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        _print_logs(the_stage.folder)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; taking everything down", file=sys.stderr)
        return 130
    return 0


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _print_logs(folder: Path) -> None:
    the_record = record.load(folder)
    if the_record is not None:
        print(cluster.tails(the_record.plan), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
