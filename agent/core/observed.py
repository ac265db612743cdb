"""What there is of a task on this node, and what is wanted of it: the two values that every step is decided from."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Self

from agent.core.record import ContainerRecord, Exit, Record
from protos import containers
from protos.orch.v1 import objects_pb2 as pb


class Life(Enum):
    """What the runtime has under a container's id."""

    NONE = "none"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The last step failed."""

    reason: str
    message: str
    attempts: int = 1  # of the same step, in a row
    retry_at: int = 0  # ms; not looked at when it is final
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What there is of one container."""

    record: ContainerRecord = field(default_factory=ContainerRecord)
    life: Life = Life.NONE
    exit: Exit | None = None  # of the STOPPED container, until it is noted in the record
    image_ready: bool = False
    prepare_stop_at: int = 0  # ms, since when its preStop hook runs; 0: not yet
    stop_prepared: bool = False  # that hook has ended, well or not
    stop_asked_at: int = 0  # ms; 0: not yet
    kill_asked_at: int = 0
    not_ready: str = ""  # why the running container is not ready, as far as its probes have said

    @property
    def is_ready(self) -> bool:
        """It runs and does its work."""
        return self.life is Life.RUNNING and self.record.ready and not self.record.unhealthy


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed(Sight):
    """What there is of a task on this node: its main container, and what is the task's own."""

    record: Record
    others: Mapping[str, Sight] = field(default_factory=lambda: MappingProxyType({}))
    """The other containers, by their names, as far as there is anything of them."""
    network_ready: bool = False
    volumes_gone: bool = False  # removed by this agent, after the task's end
    failure: Failure | None = None

    def of(self, name: str) -> Sight:
        """What there is of one container; the empty name means the main one."""
        return self if not name else self.others.get(name, _NOTHING)

    @property
    def each(self) -> Iterator[tuple[str, Sight]]:
        """All containers that there is anything of, the main one first."""
        yield "", self
        yield from self.others.items()

    @property
    def has_run(self) -> bool:
        """The main container was started, at least once."""
        return self.life is not Life.NONE or self.record.started_at > 0

    @property
    def memory(self) -> Record:
        """What has to be remembered: the task's record with those of its other containers."""
        if not self.others:
            return self.record
        return dataclasses.replace(self.record, others={name: one.record for name, one in self.others.items()})

    def with_one(self, name: str, sight: Sight) -> Self:
        """The same with another sight of one container, which is the main one when the name is empty."""
        if not name:
            assert isinstance(sight, type(self)), "the main container is what there is of the task"
            return sight
        return dataclasses.replace(self, others={**self.others, name: sight})


_NOTHING = Sight()


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What is wanted of a task. It only rises, and the template never changes."""

    state: pb.DesiredState.ValueType
    template: pb.TaskTemplate
    gone: bool = False  # the leader has no record of it: nothing is kept, nothing is reported
    lost: bool = False  # the leader gave it up while this node was out of reach: it stops, nothing is reported
    withdrawn: bool = False  # it is to stop, and no node sends it new connections any more
    waits_for: str = ""  # what it is held for at READY, in words for people
    images: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The digests of its images, by the images as the template names them, as far as they are settled."""

    def container(self, name: str) -> pb.Container:
        """What is wanted of one container. One that the template does not have is a stray, which only has to go."""
        return containers.named(self.template, name) or pb.Container()

    @property
    def others(self) -> Iterator[str]:
        """The names of the other containers, in the order of their starts."""
        return (one.name for one in containers.others(self.template))


def is_unwanted(desired: Desired) -> bool:
    """Whether the task is to stop."""
    return desired.gone or desired.lost or desired.state >= pb.DESIRED_STATE_SHUTDOWN
