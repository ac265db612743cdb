"""What an agent remembers of a task across its own death: written after every change, read at the next start.

Two rules: a record's state only rises, and whatever cannot be learned from the kernel again (the address, how often
a container was restarted, how the last one ended) is in here.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from protos import states, units
from protos.states import State

HOOK = "postStart hook failed: "
"""What a container's trouble begins with when it is its hook that wants it restarted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container ended."""

    code: int  # 128 + n after signal n; 125 to 127 when it never started
    finished_at: int  # ms since 1970
    oom_killed: bool = False
    message: str = ""  # what the runtime said, when it never started
    memory_limit: int = 0  # bytes, in force when it was killed for memory; 0: none, or not killed

    @property
    def out_of_memory(self) -> str:
        """Why it was killed, for people."""
        if not self.memory_limit:
            return "killed: the machine was out of memory, and it has no limit of its own"
        return f"killed: out of memory, its limit is {units.format_bytes(self.memory_limit)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """One container of a task, and those that it takes the place of."""

    image_digest: str = ""  # of the manifest: a restart uses the very same image
    stop_signal: str = "SIGTERM"  # the template's, else the image's
    started_at: int = 0  # of the present container, or the last one
    exit: Exit | None = None  # of the last container
    hooked: bool = False  # of the present container: its postStart hook has ended well
    ready: bool = True  # of the present container: what its probes said last
    unhealthy: str = ""  # which probe or hook wants the present container restarted, or wanted it of the last one
    restarts: int = 0
    first_run_ms: int = 0  # how long the first container ran, once there was a restart
    restart_times: tuple[int, ...] = ()  # those that may still be within the policy's window, oldest first
    quick_exits: int = 0  # exits in a row without a minute of health between them
    restart_at: int = 0  # when the next container may be started; 0: at once
    ending: State | None = None  # what its end leads to: no other container takes its place

    @property
    def why_ended(self) -> tuple[str, str]:
        """The message and the reason of a task that ended by itself."""
        assert self.exit is not None, "a task ends by itself through an exit"
        times = "1 restart" if self.restarts == 1 else f"{self.restarts} restarts"
        again = f" after {times}" if self.restarts else ""
        if self.ending == states.COMPLETE:
            return f"ended with exit code {self.exit.code}", ""
        if self.unhealthy:
            return f"{self.unhealthy}{',' if again else ''}{again}", self.unhealthy_reason
        if self.exit.message:
            return f"the container could not be started{again}: {self.exit.message}", "StartFailed"
        if self.exit.oom_killed:
            return f"{self.exit.out_of_memory}{',' if again else ''}{again}", "OutOfMemory"
        return f"ended with exit code {self.exit.code}{again}", "ExitCode"

    @property
    def unhealthy_reason(self) -> str:
        """The word for who wants it restarted."""
        return "HookFailed" if self.unhealthy.startswith(HOOK) else "ProbeFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(ContainerRecord):
    """One task: what is its own, and its main container's record. Its `ending` is the task's."""

    state: State = states.ASSIGNED
    at: int = 0  # when the state was reached, ms
    message: str = ""
    reason: str = ""
    address: str = ""
    address6: str = ""
    root_id: int | None = None  # the node's id of the containers' root; 0: it has the node's users; None: not decided
    leaving_since: int = 0  # when a task with ports was told to stop: from then on it leaves the endpoints, ms
    draining_since: int = 0  # when it had left them on every node, ms
    others: Mapping[str, ContainerRecord] = field(default_factory=lambda: MappingProxyType({}))
    """Of its other containers, by their names, as far as there is anything to know of them."""


def _names(kind: type) -> tuple[str, ...]:
    return tuple(one.name for one in dataclasses.fields(kind))


_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_OF_AN_EXIT, _OF_A_CONTAINER, _OF_A_TASK = _names(Exit), _names(ContainerRecord), _names(Record)


def to_json(record: Record) -> str:
    """The record as it is kept on disk."""
    fields = _plain(record, _OF_A_TASK)
    fields["others"] = {name: _plain(one, _OF_A_CONTAINER) for name, one in record.others.items()}
    return _ENCODER.encode(fields)


def _plain(record: ContainerRecord, names: tuple[str, ...]) -> dict[str, Any]:
    """What `dataclasses.asdict` would make of it, without its deep copies: this is written at every step of a task."""
    fields = {name: getattr(record, name) for name in names}
    if record.exit is not None:
        fields["exit"] = {name: getattr(record.exit, name) for name in _OF_AN_EXIT}
    return fields


def from_json(text: str) -> Record:
    """The record that `to_json` wrote. ValueError when the text is something else."""
    try:
        fields: dict[str, Any] = json.loads(text)
        others = {name: ContainerRecord(**_read(one)) for name, one in fields.get("others", {}).items()}
        return Record(**{**_read(fields), "others": others})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a task's record: {error}") from error


def _read(fields: dict[str, Any]) -> dict[str, Any]:
    ended = fields["exit"]
    return {
        **fields,
        "exit": Exit(**ended) if ended is not None else None,
        "restart_times": tuple(fields["restart_times"]),
    }
