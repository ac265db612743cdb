"""The audit log: who changed what, and who was refused. One line of JSON a call, in a file of each instance, and the
same for the cluster's book (`auditbook.py`).

Four rules. What a call may do is not held up by it: a disk that is full is told in the log and nothing else. It is
bounded: four files of 16 MiB, and so many objects of so many characters a line. Refusals are told at a pace
(`core/trust/refusals.py`), since they cost whoever gets them nothing. And no values are in it, only which objects:
manifests may hold passwords, and so may commands.
"""

import asyncio
import contextlib
import datetime as dt
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from controlplane.core import request_errors as errors
from controlplane.core.trust import deeds
from controlplane.core.trust.refusals import MAX_REFUSAL, Refusals
from controlplane.core.trust.rules import Caller
from controlplane.store import errors as store_errors
from images import errors as image_errors
from protos import running
from protos.orch.v1 import trust_pb2 as pb

MAX_BYTES = 16 * 1024 * 1024
FILES = 4
BROKEN_OFF = "broken off before its end; what had been done by then stays"
LEFT_OUT_EVERY_S = 10.0
"""How often is looked at what refusals were left out, and may be told by now."""
_STEPS = {
    pb.AUDIT_STEP_BEGUN: "begun",
    pb.AUDIT_STEP_ENDED: "ended",
    pb.AUDIT_STEP_BROKEN_OFF: "broken off",
}
_NOTHING_DONE = (errors.RequestError, store_errors.Conflict, image_errors.ImageError)
"""Whatever else comes out of a call leaves open what it has done: the store may have the change, and not its answer."""

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Told:
    """A call that is being answered. `quiet`: it reads, and is told only when it is refused.

    `request`: None where several messages come one after the other.
    """

    audit: "Audit"
    caller: Caller
    method: str
    request: Any = None
    quiet: bool = False
    begun: bool = field(default=False, init=False)
    _answer: Any = field(default=None, init=False)
    _first: Sequence[str] | None = field(default=None, init=False)

    def goes_on(self, message: Any) -> None:
        """The next message of a call that brings several. The first one says what it is about."""
        if self._first is None:
            self._first = deeds.objects(message)

    def begins(self) -> None:
        """What was asked for begins now, and lasts. It is told at once: a shell may be open for days."""
        if self.quiet or self.begun:
            return
        self.begun = True
        self.audit.tell(self.record(pb.AUDIT_STEP_BEGUN))

    def answered(self, answer: Any) -> None:
        """It is done, with this answer."""
        self._answer = answer
        self.quiet = self.quiet or deeds.changed_nothing(self.request, answer)

    def record(self, step: "pb.AuditStep.ValueType" = pb.AUDIT_STEP_UNSPECIFIED, refused: str = "") -> pb.AuditRecord:
        """What is to be told of it, as far as it has come."""
        return pb.AuditRecord(
            who=self.caller.identity.name,
            role=self.caller.identity.role,
            call=self.method.rpartition("/")[2],
            objects=deeds.objects(self.request, self._answer) if self._first is None else self._first,
            refused=refused[:MAX_REFUSAL],
            step=step,
        )


class Audit:
    """Appends to a file. Few calls change something, and a line is written in some 10 µs: it is done at once.

    `also`: who else is told. Run `run`; everything else may be called at once.
    """

    def __init__(
        self, path: Path, now_ms: Callable[[], int], also: Callable[[pb.AuditRecord], None] = lambda _: None
    ) -> None:
        self._path = path
        self._now_ms = now_ms
        self._also = also
        self._refusals = Refusals()

    @contextlib.contextmanager
    def told(self, caller: Caller, method: str, request: Any) -> Iterator[Told]:
        """Tells of the call that is answered in the block, when it has ended. `request`: None while it is to come."""
        told = Told(audit=self, caller=caller, method=method, request=request)
        try:
            yield told
        except Exception as error:
            self._tell_failed(told, running.leaf(error))
            raise
        except asyncio.CancelledError:  # the caller went away, or this instance ends
            if not told.quiet:
                self.tell(told.record(pb.AUDIT_STEP_BROKEN_OFF, BROKEN_OFF))
            raise
        if not told.quiet:
            self.tell(told.record(pb.AUDIT_STEP_ENDED if told.begun else pb.AUDIT_STEP_UNSPECIFIED))

    def _tell_failed(self, told: Told, error: Exception) -> None:
        why = str(error) or type(error).__name__
        if told.quiet and not isinstance(error, errors.Forbidden | errors.Unidentified):
            return
        if told.begun or not isinstance(error, _NOTHING_DONE):
            self.tell(told.record(pb.AUDIT_STEP_BROKEN_OFF, why))
        else:
            self.refused(told.caller.identity.member, told.record(refused=why))

    def refused(self, who: str, record: pb.AuditRecord) -> None:
        """Has a refusal told, at the pace of `who`."""
        record.at = self._now_ms()
        now = self._refusals.take(who, record, record.at)
        if now is not None:
            self.tell(now)

    async def run(self) -> None:
        """Tells what refusals were left out, until cancelled; then, in the file, of the last ones."""
        try:
            while True:
                await asyncio.sleep(LEFT_OUT_EVERY_S)
                for record in self._refusals.due(self._now_ms()):
                    self.tell(record)
        finally:
            for record in self._refusals.rest():
                self.tell(record)

    def tell(self, record: pb.AuditRecord) -> None:
        """Has it written. `instance` is left to the cluster's book."""
        record.at = record.at or self._now_ms()
        self._also(record)
        line = {
            "at": dt.datetime.fromtimestamp(record.at / 1000, dt.UTC).isoformat(timespec="milliseconds"),
            "who": record.who,
            "role": record.role,
            "call": record.call,
            "objects": list(record.objects),
            **({"step": _STEPS[record.step]} if record.step else {}),
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
