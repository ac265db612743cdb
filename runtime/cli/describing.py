"""A container as a JSON object: the specification's state (runtime.md, "State") and runc's additions."""

import os
from typing import Any

from runtime import control, state
from runtime.cli import report
from runtime.state import State


def describe(root: str, known: State) -> dict[str, Any]:
    """What `state` prints for one container, and `list` for each."""
    config = control.config(root, known.id)
    status = control.status(known)
    return {
        "ociVersion": config.get("ociVersion", ""),
        "id": known.id,
        "pid": 0 if status == "stopped" else known.pid,
        "status": status,
        "bundle": known.bundle,
        "rootfs": (config.get("root") or {}).get("path", ""),
        "created": report.timestamp(known.created_ns),
        "annotations": config.get("annotations") or {},
        "owner": _owner(os.stat(state.folder(root, known.id)).st_uid),
    }


def _owner(uid: int) -> str:
    return "root" if uid == 0 else str(uid)
