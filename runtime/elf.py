"""The smallest executable that the kernel takes: an ELF file of one segment (elf(5)), from machine code for x86-64."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

_BASE: Final = 0x400000
_HEADER_BYTES: Final = 64
_SEGMENT_BYTES: Final = 56
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551
_READ, _WRITE, _EXECUTE = 4, 2, 1
_X86_64: Final = 62


@dataclass(frozen=True, slots=True)
class Label:
    """A place to jump to."""

    name: str


@dataclass(frozen=True, slots=True)
class Jump:
    """An instruction whose last byte is the distance from behind it to a label."""

    opcode: bytes
    to: str


Part: TypeAlias = bytes | Label | Jump


def assemble(parts: Sequence[Part]) -> bytes:
    """The machine code. A jump reaches 127 bytes: struct.error when a label is farther away."""
    places: dict[str, int] = {}
    position = 0
    for part in parts:
        if isinstance(part, Label):
            places[part.name] = position
        position += _size(part)
    code = b""
    for part in parts:
        if isinstance(part, Jump):
            code += part.opcode + struct.pack("b", places[part.to] - len(code) - _size(part))
        elif isinstance(part, bytes):
            code += part
    return code


def _size(part: Part) -> int:
    if isinstance(part, Label):
        return 0
    return len(part.opcode) + 1 if isinstance(part, Jump) else len(part)


def executable(code: bytes) -> bytes:
    """An executable that begins with the first instruction. Its memory cannot be written but for a stack."""
    begin = _HEADER_BYTES + 2 * _SEGMENT_BYTES
    size = begin + len(code)
    header = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little-endian, version 1
    # Type ET_EXEC, machine, version; entry; where segments and sections are described; flags; sizes and counts.
    header += struct.pack("<HHI", 2, _X86_64, 1)
    header += struct.pack("<QQQ", _BASE + begin, _HEADER_BYTES, 0)
    header += struct.pack("<IHHHHHH", 0, _HEADER_BYTES, _SEGMENT_BYTES, 2, 0, 0, 0)
    # The file as a whole, headers included, at its place; and a stack that cannot be executed.
    load = struct.pack("<IIQQQQQQ", _PT_LOAD, _READ | _EXECUTE, 0, _BASE, _BASE, size, size, 0x1000)
    stack = struct.pack("<IIQQQQQQ", _PT_GNU_STACK, _READ | _WRITE, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code
