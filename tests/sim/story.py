"""What happened, told for whoever debugs: every change of every object, and every fault, with its virtual time."""

import asyncio

from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb

LAST = 400
"""Lines that a failure shows."""


class Story:
    """Lines in order; `about` picks those that name something."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Something happened."""
        self.lines.append(f"{asyncio.get_running_loop().time():9.4f}  {text}")

    def tell(
        self, kind: kinds.Kind, key: str, before: kinds.StoredObject | None, after: kinds.StoredObject | None
    ) -> None:
        """An object has changed."""
        name = key.rsplit("/", 1)[-1]
        if after is None:
            self.say(f"{kind.name} {name}: removed")
        elif isinstance(after, pb.Task):
            self.say(f"task {name}: {_describe_task(after)}")
        elif isinstance(after, pb.Node):
            self.say(f"node {name}: {pb.NodeState.Name(after.status.state)} {after.status.message}")
        elif isinstance(after, pb.Service):
            self.say(f"service {name}: generation {after.meta.generation}, {after.status.message}")
        elif before is None:
            self.say(f"{kind.name} {name}: made")

    def about(self, word: str) -> list[str]:
        """The lines that name `word`."""
        return [line for line in self.lines if word in line]

    def end(self) -> str:
        """The last lines."""
        return "\n".join(self.lines[-LAST:])


def _describe_task(task: pb.Task) -> str:
    desired = pb.DesiredState.Name(task.desired_state).removeprefix("DESIRED_STATE_")
    node = f" on {task.node_id}" if task.node_id else ""
    return f"{states.word(task.status.state)} (wanted: {desired}){node} {task.status.message}".rstrip()
