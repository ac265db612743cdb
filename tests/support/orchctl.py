"""Run the real `orchctl` as a process of its own, as a person would."""

import os
import subprocess
import sys
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
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ORCH_", "_ORCHCTL"))}
    chosen = {"ORCH_SERVER": server} if server else {}
    return {**clean, "ORCH_CONFIG": str(folder / "config.yaml"), "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **chosen}


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
