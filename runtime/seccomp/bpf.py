"""What filters are made of (Documentation/networking/filter.rst; `struct seccomp_data` in seccomp(2))."""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

LOAD, JUMP, EQUAL, ABOVE, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x45, 0x54, 0x06
AT_NUMBER, AT_ARCHITECTURE = 0, 4
"""Where a load finds them in the data."""

_FORMAT: Final = struct.Struct("<HBBI")


class Instruction(NamedTuple):
    """One `struct sock_filter`: code, distance when true, distance when false, operand."""

    code: int
    yes: int
    no: int
    operand: int


def read(program: bytes) -> list[Instruction]:
    """The instructions of a program."""
    return [Instruction(*fields) for fields in _FORMAT.iter_unpack(program)]


def written(instructions: Iterable[Instruction]) -> bytes:
    """The program that they are."""
    return b"".join(_FORMAT.pack(*each) for each in instructions)
