"""The door to programs of ours that this one does not contain: a cluster on this machine, and the node that it is."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from orchctl.errors import OrchctlError


def become(module: str, *arguments: str) -> NoReturn:
    """Becomes `python -m module`: signals, output and exit code need no passing on."""
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], _environment())


def ask(module: str, *arguments: str, told: str = "") -> str:
    """What `python -m module` writes. Raises OrchctlError with its last words when it fails.

    `told`: what it reads from its standard input, since arguments are seen by everybody on the machine.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=_environment(), input=told, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        *_, before, said = ["", "", *(done.stderr.strip().splitlines() or [f"{module} failed and said nothing"])]
        hint = said.removeprefix("hint: ") if said.startswith("hint: ") else ""
        words = before if hint else said
        raise OrchctlError(words.partition(": ")[2] or words, hint=hint)
    return done.stdout


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root}
