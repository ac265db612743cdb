"""Kernel parameters of the node that the agent needs otherwise than they are, and what they were before.

Two rules: what a parameter was is on disk before it is changed; and it is put back only while it is still what the
agent has made it, in the same boot: what somebody else has set since is theirs.
"""

import contextlib
import json
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ROOT = Path("/proc/sys")


class Parameters:
    """Those of the network namespace that the caller is in, with a note of what they were at `note`."""

    def __init__(self, note: Path) -> None:
        self._note = note

    def set(self, name: str, value: str) -> None:
        """`net/ipv4/ip_forward`, `1`. Raises OSError."""
        path = _ROOT / name
        before = path.read_text().strip()
        if before == value:
            return
        known = self._known()
        if name not in known:
            self._save({**known, name: [before, value]})
        path.write_text(value)

    def put_back(self) -> list[str]:
        """All of them; returns the names of those that have changed. Nothing is left to be put back. Raises OSError."""
        changed = []
        for name, (before, ours) in self._known().items():
            path = _ROOT / name
            if path.exists() and path.read_text().strip() == ours:  # one of a device goes with the device
                path.write_text(before)
                changed.append(name)
        self._note.unlink(missing_ok=True)
        return changed

    def _known(self) -> dict[str, list[str]]:
        """Of this boot. A note that cannot be read is as good as none."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text())
            if note["boot"] == _boot():
                return {str(name): [str(before), str(ours)] for name, (before, ours) in note["before"].items()}
        return {}

    def _save(self, known: dict[str, list[str]]) -> None:
        beside = self._note.with_name(f"{self._note.name}.new")
        beside.write_text(json.dumps({"boot": _boot(), "before": known}))
        beside.replace(self._note)


def _boot() -> str:
    return _BOOT.read_text().strip()
