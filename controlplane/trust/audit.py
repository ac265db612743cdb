"""The audit log: who changed what, and who was refused. One line of JSON a call, in a file of each instance, and the
same for the cluster's book (`auditbook.py`).

Three rules. What a call may do is not held up by it: a disk that is full is told in the log and nothing else. It is
bounded: four files of 16 MiB. And no values are in it, only which objects: manifests may hold passwords.
"""

import contextlib
import datetime as dt
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from controlplane.core import request_errors as errors
from controlplane.core.trust.rules import Caller
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import trust_pb2 as pb_trust

MAX_BYTES = 16 * 1024 * 1024
FILES = 4
MAX_OBJECTS = 20
MAX_REFUSAL = 300

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Told:
    """`quiet`: it reads, and is told only when it is refused."""

    quiet: bool = False


class Audit:
    """Appends to a file. Few calls change something, and a line is written in some 10 µs: it is done at once.

    `also`: who else is told.
    """

    def __init__(self, path: Path, also: Callable[[pb_trust.AuditRecord], None] = lambda _: None) -> None:
        self._path = path
        self._also = also

    @contextlib.contextmanager
    def told(self, caller: Caller, method: str, request: Any) -> Iterator[Told]:
        """Tells of the call that is answered in the block, when it has ended."""
        told = Told()
        try:
            yield told
        except (errors.Forbidden, errors.Unidentified) as error:
            self._write(caller, method, request, error.message)
            raise
        except Exception as error:
            if not told.quiet:
                self._write(caller, method, request, str(error) or type(error).__name__)
            raise
        if not told.quiet:
            self._write(caller, method, request, "")

    def _write(self, caller: Caller, method: str, request: Any, refused: str) -> None:
        named = _objects(request)
        self._also(
            pb_trust.AuditRecord(
                who=caller.identity.name,
                role=caller.identity.role,
                call=method.rpartition("/")[2],
                objects=named,
                refused=refused[:MAX_REFUSAL],
            )
        )
        line = {
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "who": caller.identity.name,
            "role": caller.identity.role,
            "call": method.rpartition("/")[2],
            "objects": named,
            **({"refused": refused} if refused else {}),
        }
        try:
            self._make_room()
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is a descriptor
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            _log.error("the audit log cannot be written", why=str(error), **line)

    def _make_room(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size < MAX_BYTES:
                return
            for number in range(FILES - 1, 0, -1):
                older = self._path.with_suffix(f".{number}")
                newer = self._path if number == 1 else self._path.with_suffix(f".{number - 1}")
                with contextlib.suppress(FileNotFoundError):
                    newer.replace(older)


def _objects(request: Any) -> list[str]:
    """Which objects a request names, as far as it does."""
    if isinstance(request, pb.ApplyRequest):
        fields = [(one.WhichOneof("kind"), one) for one in request.objects[:MAX_OBJECTS]]
        named = [(kind, getattr(one, kind).meta) for kind, one in fields if kind is not None]
        return [_label(kind, meta.namespace, meta.name) for kind, meta in named]
    reference = getattr(request, "reference", None)
    if isinstance(reference, pb.ObjectReference):
        return [_label(reference.kind, reference.namespace, reference.name)]
    return [str(value) for name in ("node", "name", "id", "person") if (value := getattr(request, name, ""))]


def _label(kind: str, namespace: str, name: str) -> str:
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
