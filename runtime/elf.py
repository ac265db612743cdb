"""The smallest executable that the kernel takes: an ELF file of one segment (elf(5)), from machine code.

A piece of machine code is bytes, a place to jump to, or an instruction that jumps there, each as its machine has it.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

X86_64: Final = 62
AARCH64: Final = 183

_BASE: Final = 0x400000
_PAGE_BYTES: Final = 0x10000  # the largest of either machine
_HEADER_BYTES: Final = 64
_SEGMENT_BYTES: Final = 56
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551
_READ, _WRITE, _EXECUTE = 4, 2, 1


class Label(NamedTuple):
    """A place to jump to."""

    name: str


class Jump(NamedTuple):
    """An instruction of x86-64 whose last byte is the distance from behind it: 127 bytes, or struct.error."""

    opcode: bytes
    to: str

    def encoded(self, distance: int) -> bytes:
        """The instruction, for a distance from its own place."""
        return self.opcode + struct.pack("b", distance - self.size)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.opcode) + 1


class Branch(NamedTuple):
    """An instruction of aarch64 that holds the distance from its own place, in words, from bit `shift` on."""

    opcode: int
    shift: int
    bits: int
    to: str

    def encoded(self, distance: int) -> bytes:
        """The instruction, for a distance from its own place in bytes."""
        words, limit = distance // 4, 1 << (self.bits - 1)
        assert distance % 4 == 0, f"{self.to} is not at a word"
        assert -limit <= words < limit, f"{self.to} is too far away"
        return struct.pack("<I", self.opcode | (words & ((1 << self.bits) - 1)) << self.shift)

    @property
    def size(self) -> int:
        """In bytes."""
        return 4


Part: TypeAlias = bytes | Label | Jump | Branch


def assemble(parts: Sequence[Part]) -> bytes:
    """The machine code."""
    places: dict[str, int] = {}
    position = 0
    for part in parts:
        if isinstance(part, Label):
            places[part.name] = position
        position += _size(part)
    code = b""
    for part in parts:
        if isinstance(part, Jump | Branch):
            code += part.encoded(places[part.to] - len(code))
        elif isinstance(part, bytes):
            code += part
    return code


def _size(part: Part) -> int:
    if isinstance(part, Label):
        return 0
    return part.size if isinstance(part, Jump | Branch) else len(part)


def executable(code: bytes, machine: int) -> bytes:
    """An executable for X86_64 or AARCH64 that begins with the first instruction.

    Its memory cannot be written but for a stack.
    """
    begin = _HEADER_BYTES + 2 * _SEGMENT_BYTES
    size = begin + len(code)
    header = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little-endian, version 1
    # Type ET_EXEC, machine, version; entry; where segments and sections are described; flags; sizes and counts.
    header += struct.pack("<HHI", 2, machine, 1)
    header += struct.pack("<QQQ", _BASE + begin, _HEADER_BYTES, 0)
    header += struct.pack("<IHHHHHH", 0, _HEADER_BYTES, _SEGMENT_BYTES, 2, 0, 0, 0)
    # The file as a whole, headers included, at its place; and a stack that cannot be executed.
    load = struct.pack("<IIQQQQQQ", _PT_LOAD, _READ | _EXECUTE, 0, _BASE, _BASE, size, size, _PAGE_BYTES)
    stack = struct.pack("<IIQQQQQQ", _PT_GNU_STACK, _READ | _WRITE, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code
