"""A two-way stream of messages between an agent and the leader, whatever carries it.

gRPC carries it in the product, a queue in one process in the simulation. Both sides of a session are written against
this protocol, so that the same code runs in both.
"""

from typing import Protocol, TypeVar

Out = TypeVar("Out", contravariant=True)  # noqa: PLC0105 - `Link[Out, In]` reads better
In = TypeVar("In", covariant=True)  # noqa: PLC0105


class LinkLost(Exception):  # noqa: N818 - what happened, in the words of the field
    """The other side is gone; the text says why. What was sent may or may not have arrived."""


class Link(Protocol[Out, In]):
    """One end of the stream."""

    async def send(self, message: Out) -> None:
        """Sends a message. Waits while the other side is slow. Raises LinkLost."""

    async def receive(self) -> In:
        """The next message, in the order in which they were sent. Raises LinkLost at the end."""
        ...

    async def close(self, reason: str = "") -> None:
        """Ends the stream; the other side's next `receive` raises LinkLost. May be called twice."""
