"""What an agent can do for a task: each step is a value, with a line for the log.

One rule: a step says what is to be done and to which container, and nothing of how. `container` is a name; the empty
one means the main container.
"""

from dataclasses import dataclass
from typing import TypeAlias

from agent.core.record import Exit
from protos import states
from protos.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Enter:
    """Say that the task has reached a state."""

    state: State
    message: str = ""
    reason: str = ""

    def describe(self) -> str:
        return f"enter {states.word(self.state)}" + (f" ({self.reason}: {self.message})" if self.reason else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareImage:
    """Have the image's layers on this node."""

    reference: str
    container: str = ""

    def describe(self) -> str:
        return f"prepare image {self.reference}"


@dataclass(frozen=True, slots=True)
class TakeUsers:
    """Give the task users of its own, or the node's; written down before anything is made for them."""

    def describe(self) -> str:
        return "take a range of user ids"


@dataclass(frozen=True, slots=True)
class TakeAddress:
    """Give the task an address and its ports; written down before anything is made with them."""

    def describe(self) -> str:
        return "take an address"


@dataclass(frozen=True, slots=True)
class AttachNetwork:
    """Make the task's network namespace with its address, and publish its ports."""

    def describe(self) -> str:
        return "attach to the network"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartContainer:
    """Start the container; `again` when it takes the place of one that ended."""

    again: bool
    container: str = ""

    def describe(self) -> str:
        return f"start {_called(self.container)} again" if self.again else f"start {_called(self.container)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteExit:
    """Write down how the container ended, and what follows."""

    exit: Exit
    container: str = ""

    def describe(self) -> str:
        return f"note exit code {self.exit.code}{_of(self.container)}"


@dataclass(frozen=True, slots=True)
class Leave:
    """Write down since when the task is to stop, and so has to leave the endpoints."""

    def describe(self) -> str:
        return "leave the endpoints"


@dataclass(frozen=True, slots=True)
class Drain:
    """Write down since when the task gets no new connections."""

    def describe(self) -> str:
        return "drain connections"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareStop:
    """Note since when the container is about to be stopped: its preStop hook is run from then on."""

    container: str = ""

    def describe(self) -> str:
        return f"run the preStop hook{_of(self.container)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Ask the container to stop."""

    container: str = ""

    def describe(self) -> str:
        return f"send the stop signal{_to(self.container)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Kill the container: it did not stop when asked to."""

    container: str = ""

    def describe(self) -> str:
        return f"send SIGKILL{_to(self.container)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteContainer:
    """Remove what the runtime has of the container."""

    container: str = ""

    def describe(self) -> str:
        return f"delete {_called(self.container)}"


@dataclass(frozen=True, slots=True)
class DetachNetwork:
    """Take the task's ports, address and network namespace away."""

    def describe(self) -> str:
        return "detach from the network"


@dataclass(frozen=True, slots=True)
class FreeUsers:
    """Let others have the task's users: nothing that is theirs runs or is pinned any more."""

    def describe(self) -> str:
        return "give the range of user ids back"


@dataclass(frozen=True, slots=True)
class RemoveVolumes:
    """Remove what the containers of a task that has ended have shared."""

    def describe(self) -> str:
        return "remove the volumes"


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the task's record, log and files. The last step."""

    def describe(self) -> str:
        return "forget the task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to do until something changes, or until a moment."""

    until: int = 0  # ms; 0: no moment
    why: str

    def describe(self) -> str:
        return f"wait: {self.why}"


ContainerStep: TypeAlias = PrepareImage | StartContainer | NoteExit | PrepareStop | Stop | Kill | DeleteContainer
"""What is done to one container."""

TaskStep: TypeAlias = (
    Enter
    | TakeUsers
    | TakeAddress
    | AttachNetwork
    | Leave
    | Drain
    | DetachNetwork
    | FreeUsers
    | RemoveVolumes
    | Forget
    | Wait
)
"""What is done to the task as a whole."""

Step: TypeAlias = ContainerStep | TaskStep


def _called(container: str) -> str:
    return f"container {container}" if container else "the container"


def _of(container: str) -> str:
    return f" of container {container}" if container else ""


def _to(container: str) -> str:
    return f" to container {container}" if container else ""
