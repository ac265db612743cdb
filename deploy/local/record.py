"""`cluster.json` in the state folder: the plan, and which processes there are. The supervisor is its one writer.

The folder's lock tells whether the cluster is up: supervisor and sweeper hold it for as long as they live, so it can
never say yes about a cluster that has crashed.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy.local import plan as plans
from deploy.local.processes import Process

_FILE: Final = "cluster.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a cluster that is up, or was."""

    plan: plans.Plan
    processes: Mapping[str, Process | None] = field(default_factory=dict)
    """By name: `supervisor`, `sweeper`, `etcd`, `cp1`, `n1`, …. None: not running at the moment."""
    previous_context: str = ""
    """What `orchctl` talked to before."""


def save(record: Record) -> None:
    """In one step: a reader sees the old content or the new one."""
    folder = Path(record.plan.folder)
    new = folder / f".{_FILE}.new"
    new.write_text(json.dumps(asdict(record), indent=1))
    new.replace(folder / _FILE)


def load(folder: Path) -> Record | None:
    """What the folder holds. None when there is no record, or half of one."""
    try:
        content: dict[str, Any] = json.loads((folder / _FILE).read_text())
        known = {name: Process(**one) if one else None for name, one in content["processes"].items()}
        lan = plans.Lan(**content["plan"].pop("lan"))
        plan = plans.Plan(**content["plan"], lan=lan)
        return Record(plan=plan, processes=known, previous_context=content["previous_context"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # TypeError: written by another version
        return None


def lock(folder: Path) -> int | None:
    """The descriptor that holds the folder's lock until it (and each copy of it) is closed. None: somebody has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(folder: Path) -> bool:
    """Whether somebody holds the lock. A folder that does not exist is not locked."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = lock(folder)
        if descriptor is None:
            return True
        os.close(descriptor)
    return False
