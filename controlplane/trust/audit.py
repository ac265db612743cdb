"""The audit log: who changed what, and who was refused. One line of JSON a call, in a file of each instance, and the
same for the cluster's book (`auditbook.py`).

Three rules. What a call may do is not held up by it: a disk that is full is told in the log and nothing else. It is
bounded: four files of 16 MiB, and so many objects of so many characters a line. And no values are in it, only which
objects: manifests may hold passwords, and so may commands.
"""

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
MAX_NAME = 300
"""Characters of an object's name. Names that are good are shorter; a call with another one is refused, and told."""
MAX_REFUSAL = 300
BROKEN_OFF = "broken off before its end; what had been done by then stays"

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Told:
    """`quiet`: it reads, and is told only when it is refused."""

    quiet: bool = False
    request: Any = None
    """Where all of it came at once."""
    _began: Sequence[str] | None = field(default=None, init=False)

    def goes_on(self, message: Any) -> None:
        """The next message of a call that brings several. The first one says what it is about."""
        if self._began is None:
            self._began = objects(message)

    @property
    def objects(self) -> Sequence[str]:
        """Which objects the call names, as far as it has come."""
        return objects(self.request) if self._began is None else self._began


class Audit:
    """Appends to a file. Few calls change something, and a line is written in some 10 µs: it is done at once.

    `also`: who else is told.
    """

    def __init__(self, path: Path, also: Callable[[pb_trust.AuditRecord], None] = lambda _: None) -> None:
        self._path = path
        self._also = also

    @contextlib.contextmanager
    def told(self, caller: Caller, method: str, request: Any) -> Iterator[Told]:
        """Tells of the call that is answered in the block, when it has ended. `request`: None while it is to come."""
        told = Told(request=request)
        try:
            yield told
        except (errors.Forbidden, errors.Unidentified) as error:
            self._write(caller, method, told, error.message)
            raise
        except Exception as error:
            if not told.quiet:
                self._write(caller, method, told, str(error) or type(error).__name__)
            raise
        except asyncio.CancelledError:  # the caller went away, or this instance ends
            if not told.quiet:
                self._write(caller, method, told, BROKEN_OFF)
            raise
        if not told.quiet:
            self._write(caller, method, told, "")

    def _write(self, caller: Caller, method: str, told: Told, refused: str) -> None:
        self.tell(
            pb_trust.AuditRecord(
                who=caller.identity.name,
                role=caller.identity.role,
                call=method.rpartition("/")[2],
                objects=told.objects,
                refused=refused[:MAX_REFUSAL],
            )
        )

    def tell(self, record: pb_trust.AuditRecord) -> None:
        """Has it written. `at` and `instance` are left to the cluster's book."""
        self._also(record)
        line = {
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "who": record.who,
            "role": record.role,
            "call": record.call,
            "objects": list(record.objects),
            **({"refused": record.refused} if record.refused else {}),
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


def changed_nothing(request: Any, answer: Any) -> bool:
    """It only showed what would change, or found everything as it was asked for.

    So a cluster at rest stays at rest, however often somebody applies the same files.
    """
    if getattr(request, "dry_run", False):
        return True
    if not isinstance(answer, pb.ApplyResponse):
        return False
    return all(one.action == pb.APPLY_ACTION_UNCHANGED for one in answer.results)


def objects(request: Any) -> list[str]:
    """Which objects a request names, as far as it does: 20 names of 300 characters at most."""
    return [name[:MAX_NAME] for name in itertools.islice(_named(request), MAX_OBJECTS)]


def _named(request: Any) -> Iterable[str]:
    if isinstance(request, pb.ApplyRequest):
        for one in request.objects:
            kind = one.WhichOneof("kind")
            if kind is not None:
                meta = getattr(one, kind).meta
                yield _label(kind, meta.namespace, meta.name)
    elif isinstance(request, pb.ExecRequest | pb.CommitRequest | pb.ImportImageRequest | pb.PushBlobRequest):
        yield from _begun(request)
    elif isinstance(request, pb_trust.CreateTokenRequest):
        yield from _token(request)
    elif isinstance(reference := getattr(request, "reference", None), pb.ObjectReference):
        yield _label(reference.kind, reference.namespace, reference.name)
    else:
        yield from (str(value) for name in ("node", "name", "id") if (value := getattr(request, name, "")))


def _begun(first: pb.ExecRequest | pb.CommitRequest | pb.ImportImageRequest | pb.PushBlobRequest) -> Iterable[str]:
    """Of the first message of a call that brings several: what else a stream begins with names nothing."""
    if isinstance(first, pb.ExecRequest) and first.HasField("start"):
        yield _label("target", first.start.namespace, first.start.target)  # a task's name, or a service's
    elif isinstance(first, pb.CommitRequest) and first.HasField("start"):
        yield _label("task", first.start.namespace, first.start.task)
    elif isinstance(first, pb.ImportImageRequest) and first.options.name:
        yield _label("image", "", first.options.name)
    elif isinstance(first, pb.PushBlobRequest) and first.HasField("start"):
        yield _label("blob", "", first.start.digest)


def _token(request: pb_trust.CreateTokenRequest) -> Iterable[str]:
    """What whoever joins with it may do: all of it, since a token for everything is worth more than one for a shop."""
    yield f"role {request.role}"
    if request.person:
        yield f"person {request.person}"
    yield from (f"namespace {one}" for one in request.namespaces)
    if request.replaces:
        yield f"instead of {request.replaces}"


def _label(kind: str, namespace: str, name: str) -> str:
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
