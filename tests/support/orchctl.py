"""Run the real `orchctl` as a process of its own, as a person would."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 30
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    code: int
    out: str
    err: str


def environment(folder: Path, server: str = "") -> dict[str, str]:
    """An environment in which nothing of the person's own configuration counts."""
    foreign = ("ORCH_", "_ORCHCTL", "PYTHON")
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(foreign)},
        **({"ORCH_SERVER": server} if server else {}),
        "ORCH_CONFIG": str(folder / "config.yaml"),
        "NO_COLOR": "1",
        "PYTHONPATH": str(ROOT),
        # Compiled once for all runs, and not into the source folders.
        "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "orchctl-tests-pycache"),
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "orchctl", *arguments]


def run(environ: dict[str, str], *arguments: str, stdin: str | bytes = b"") -> Result:
    """Runs one command line to its end."""
    done = subprocess.run(
        command(*arguments),
        env=environ,
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())
