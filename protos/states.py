"""The life of a task: every edge between its states, and who may walk it.

Two rules: a state only ever rises, and each edge has one owner. The table is executed by the leader and by the agent
(`check`), proven by tests (edges rise; one owner an edge; no way out of a terminal state; every state can be reached)
and drawn into the documentation from itself (`python -m protos.states`).
"""

from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    State: TypeAlias = pb.TaskState.ValueType
else:
    State = int


class Owner(Enum):
    """Who walks an edge."""

    SCHEDULER = "leader: scheduler"
    AGENT = "agent that holds the node's session"
    NODES = "leader: node controller"
    CONTROLLER = "leader: service controller"


NEW = pb.TASK_STATE_NEW
PENDING = pb.TASK_STATE_PENDING
ASSIGNED = pb.TASK_STATE_ASSIGNED
ACCEPTED = pb.TASK_STATE_ACCEPTED
PREPARING = pb.TASK_STATE_PREPARING
READY = pb.TASK_STATE_READY
STARTING = pb.TASK_STATE_STARTING
RUNNING = pb.TASK_STATE_RUNNING
COMPLETE = pb.TASK_STATE_COMPLETE
SHUTDOWN = pb.TASK_STATE_SHUTDOWN
FAILED = pb.TASK_STATE_FAILED
REJECTED = pb.TASK_STATE_REJECTED
ORPHANED = pb.TASK_STATE_ORPHANED

PATH = (ACCEPTED, PREPARING, READY, STARTING, RUNNING)
"""The agent's part of the way up, in order. An agent may skip: what is reported is where the task is now."""

TERMINAL = frozenset({COMPLETE, SHUTDOWN, FAILED, REJECTED, ORPHANED})


def _agent_edges() -> dict[tuple[State, State], Owner]:
    """Every rise along PATH, and the ends that each state of it can come to."""
    rises = {(a, b) for a in (ASSIGNED, *PATH) for b in PATH if a < b}
    stops = {(a, SHUTDOWN) for a in (ASSIGNED, *PATH)}
    rejections = {(a, REJECTED) for a in (ASSIGNED, ACCEPTED, PREPARING, READY)}
    failures = {(a, FAILED) for a in (ASSIGNED, *PATH)}
    completions = {(a, COMPLETE) for a in (ASSIGNED, *PATH)}
    return dict.fromkeys(rises | stops | rejections | failures | completions, Owner.AGENT)


TRANSITIONS: dict[tuple[State, State], Owner] = {
    (NEW, PENDING): Owner.SCHEDULER,
    (NEW, ASSIGNED): Owner.SCHEDULER,
    (PENDING, ASSIGNED): Owner.SCHEDULER,
    # A task that no node has taken yet is ended by whoever no longer wants it.
    (NEW, SHUTDOWN): Owner.CONTROLLER,
    (PENDING, SHUTDOWN): Owner.CONTROLLER,
    **_agent_edges(),
    **dict.fromkeys([(state, ORPHANED) for state in (ASSIGNED, *PATH)], Owner.NODES),
}


def is_terminal(state: State) -> bool:
    """Nothing happens to the task any more."""
    return state in TERMINAL


def allowed(before: State, after: State, owner: Owner) -> bool:
    """Whether `owner` may move a task from `before` to `after`. Staying is always allowed: details may change."""
    return before == after or TRANSITIONS.get((before, after)) is owner


def check(before: State, after: State, owner: Owner) -> None:
    """Asserts that `owner` may move a task from `before` to `after`."""
    assert allowed(before, after, owner), f"{owner.value} may not move a task from {word(before)} to {word(after)}"


def word(state: State) -> str:
    """`RUNNING` for TASK_STATE_RUNNING."""
    return pb.TaskState.Name(state).removeprefix("TASK_STATE_")


def drawing() -> str:
    """The table as a Markdown table: one row a state, with where each owner may take it."""
    lines = ["| from | to | by |", "|---|---|---|"]
    for state in sorted({a for a, _ in TRANSITIONS}):
        for owner in Owner:
            targets = [word(b) for (a, b), who in sorted(TRANSITIONS.items()) if a == state and who is owner]
            if targets:
                lines.append(f"| {word(state)} | {', '.join(targets)} | {owner.value} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(drawing())  # noqa: T201 - this is the command that draws the table
