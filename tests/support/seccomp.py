"""What a filter's program answers, found by running it as the kernel would (Documentation/networking/filter.rst)."""

import struct
from collections.abc import Sequence

KERNEL_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0xC000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
}
X32_BIT = 0x40000000


def answer(program: bytes, architecture: str, number: int, arguments: Sequence[int] = ()) -> int:
    """The 32 bits that the program returns for a call."""
    if architecture == "SCMP_ARCH_X32":
        number |= X32_BIT
    return run(program, KERNEL_ARCHITECTURES[architecture], number, arguments)


def run(program: bytes, token: int, number: int, arguments: Sequence[int] = ()) -> int:
    """The same, with the kernel's own number of the architecture."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, token, 0, *(value & (1 << 64) - 1 for value in padded))
    at = accumulator = 0
    for _ in range(len(program) // 8):
        code, yes, no, operand = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, operand)[0]
            case 0x54:
                accumulator &= operand
            case 0x05:
                at += operand
            case 0x15:
                at += yes if accumulator == operand else no
            case 0x25:
                at += yes if accumulator > operand else no
            case 0x35:
                at += yes if accumulator >= operand else no
            case 0x45:
                at += yes if accumulator & operand else no
            case 0x06:
                return operand
            case _:
                raise AssertionError(hex(code))
    raise AssertionError("the program has no end")
