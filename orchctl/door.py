"""The door to programs of ours that this one does not contain: a cluster on this machine, and the node that it is."""

import os
import sys
from pathlib import Path
from typing import NoReturn


def become(module: str, *arguments: str) -> NoReturn:
    """Becomes `python -m module`: signals, output and exit code need no passing on."""
    root = str(Path(__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    environ = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environ)
