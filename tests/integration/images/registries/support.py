"""Small things that the tests of registries share."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Steps:
    """Everything that a progress was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, int | None]] = []

    def step(self, digest: str, doing: str, done_bytes: int, total_bytes: int | None) -> None:
        self.told.append((digest, doing, done_bytes, total_bytes))

    def words(self) -> set[str]:
        return {doing for _, doing, _, _ in self.told}


def skopeo(*arguments: str | Path) -> str:
    command = ["skopeo", "--insecure-policy", *(str(part) for part in arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
