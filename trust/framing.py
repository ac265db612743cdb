"""How messages go through the door: four bytes with the length, then the message. Both sides bound it."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

MAX_MESSAGE_BYTES = 64 * 1024
HEAD_BYTES = 4
TIMEOUT_S = 10.0
"""For what one side sends."""
ANSWER_S = 60.0
"""Until a join is answered: its certificate may have to wait for those of others, on a machine that is busy."""

M = TypeVar("M", bound=Message)


class Broken(Exception):  # noqa: N818 - what it is
    """It is none of our messages."""


def pack(message: Message) -> bytes:
    """The message with its length before it."""
    body = message.SerializeToString()
    assert len(body) <= MAX_MESSAGE_BYTES, "no message of the door is that long"
    return len(body).to_bytes(HEAD_BYTES, "big") + body


def length(head: bytes) -> int:
    """Of the message that follows. Raises Broken."""
    size = int.from_bytes(head, "big")
    if len(head) != HEAD_BYTES or size > MAX_MESSAGE_BYTES:
        raise Broken("it does not speak the language of a cluster's door")
    return size


def unpack(kind: type[M], body: bytes) -> M:
    """The message. Raises Broken."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Broken("it does not speak the language of a cluster's door") from error
