"""Calls that are later than libseccomp: a few instructions before its program.

A distribution's libseccomp knows the system calls of its own day. What a profile says of later ones it would skip, so
that they failed with EPERM, and programs that fall back to older calls on ENOSYS only would not start. Two things help:

    a later call that the profile names    gets what the profile says (its number is the same everywhere)
    a call later than all that it names    does not exist (ENOSYS), where others without a rule fail with an error

The second is runc's rule too; here it begins with Linux 5.1, where the numbers common to all machines begin. What came
before is old enough for every profile to have an opinion.
"""

import errno
from typing import Final

from runtime.seccomp import bpf
from runtime.seccomp import profile as profiles
from runtime.seccomp.bpf import AT_ARCHITECTURE, AT_LEAST, AT_NUMBER, EQUAL, JUMP, LOAD, RETURN, Instruction
from runtime.seccomp.profile import Profile

NUMBERS: Final = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
"""In the order in which Linux 6.5 to 6.17 got them."""

TOKENS: Final = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
}
"""Architectures with the common numbers, and libseccomp's names of them: the kernel's AUDIT_ARCH, but for x32."""

_FIRST_COMMON: Final = 424
_X32_BIT: Final = 0x40000000
_RANGES: Final = ((_FIRST_COMMON, _X32_BIT),)
_X32_RANGES: Final = ((_FIRST_COMMON, 512), (548, _X32_BIT - 1))


def prelude(profile: Profile, named: list[tuple[str, int]], architectures: list[str], highest: int) -> bytes:
    """The instructions; none when there is nothing to decide. `highest` is the latest call that the profile names."""
    answers = {NUMBERS[name]: action for name, action in reversed(named)}
    ends_at = max(highest + 1, _FIRST_COMMON) if profile.answers_errno else 0
    if not answers and not ends_at:
        return b""
    blocks: dict[int, list[Instruction]] = {}
    for word in architectures:
        bit = _X32_BIT if word == "SCMP_ARCH_X32" else 0
        token = TOKENS["SCMP_ARCH_X86_64" if bit else word]  # to the kernel the two are one, and the bit tells
        blocks[token] = blocks.get(token, [Instruction(LOAD, 0, 0, AT_NUMBER)]) + _answers(answers, ends_at, bit)
    program: list[Instruction] = [Instruction(LOAD, 0, 0, AT_ARCHITECTURE)]
    left = sum(len(block) + 2 for block in blocks.values())
    for token, block in blocks.items():
        # Each block ends in a jump behind the last; a conditional jump reaches 255 instructions at the most.
        left -= len(block) + 2
        program += [Instruction(EQUAL, 0, len(block) + 1, token), *block, Instruction(JUMP, 0, 0, left)]
    return bpf.written(program)


def _answers(answers: dict[int, int], ends_at: int, bit: int) -> list[Instruction]:
    """For one architecture: answer, or fall through."""
    block: list[Instruction] = []
    for number, action in answers.items():
        block += [Instruction(EQUAL, 0, 1, number | bit), Instruction(RETURN, 0, 0, action)]
    if ends_at:
        # Not beyond where the numbers end: x32 has calls of its own later on, and shares its token with x86-64.
        for first, end in _X32_RANGES if bit else _RANGES:
            block += [Instruction(AT_LEAST, 0, 2, max(first, ends_at) | bit), Instruction(AT_LEAST, 1, 0, end | bit)]
            block.append(Instruction(RETURN, 0, 0, profiles.answer(errno.ENOSYS)))
    return block
