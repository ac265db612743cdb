"""Which devices a container may use: version 1 takes lines of text, version 2 a BPF program.

The rules apply in order, the last that matches decides, and without any rule every device is open. After the
configuration's rules come the nodes that every container has.

Kernel: Documentation/admin-guide/cgroup-v1/devices, and BPF_PROG_TYPE_CGROUP_DEVICE in bpf(2). One difference:
on version 2 an access is allowed by one rule or not at all; two rules for `r` and `w` do not add up to `rw`.
"""

import os
import struct
from typing import Final

from runtime import syscalls
from runtime.resources import DeviceRule

_NODES: Final = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))
"""null zero full random urandom tty console ptmx pts: what every /dev of ours holds."""

_TYPES: Final = {"b": 1, "c": 2}
_ACCESS: Final = {"m": 1, "r": 2, "w": 4}
_EVERY_ACCESS: Final = 7

_LOAD_WORD, _MOVE, _MOVE_IMMEDIATE, _AND, _SHIFT_RIGHT, _EXIT = 0x61, 0xBF, 0xB7, 0x57, 0x77, 0x95
_JUMP_IF_NOT, _JUMP_IF = 0x55, 0x15
_RESULT, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR, _SCRATCH = range(7)

Instruction = tuple[int, int, int, int, int]
"""Code, destination register, source register, offset, immediate."""


def whole(rules: tuple[DeviceRule, ...]) -> tuple[DeviceRule, ...]:
    """The configuration's rules and the nodes of every container; nothing when there is no rule."""
    if not rules:
        return ()
    nodes = (DeviceRule(allow=True, kind="c", major=major, minor=minor, access="rwm") for major, minor in _NODES)
    return (*rules, *nodes)


def line(rule: DeviceRule) -> str:
    """A rule as devices.allow and devices.deny take it; `a` alone means every device, and resets the list."""
    if rule.kind == "a" and rule.major is None and rule.minor is None:
        return "a"
    major, minor = ("*" if number is None else number for number in (rule.major, rule.minor))
    return f"{rule.kind} {major}:{minor} {rule.access}"


def assemble(rules: tuple[DeviceRule, ...]) -> bytes:
    """The program: it gets type, access, major and minor, and returns 1 to allow, 0 to refuse."""
    program: list[Instruction] = [
        (_LOAD_WORD, _TYPE, _CONTEXT, 0, 0),  # access << 16 | type
        (_MOVE, _WANTED, _TYPE, 0, 0),
        (_SHIFT_RIGHT, _WANTED, 0, 0, 16),
        (_AND, _TYPE, 0, 0, 0xFFFF),
        (_LOAD_WORD, _MAJOR, _CONTEXT, 4, 0),
        (_LOAD_WORD, _MINOR, _CONTEXT, 8, 0),
    ]
    for rule in reversed(rules):
        program += _check(rule)
        if _matches_everything(rule):  # the kernel refuses a program with code that is never reached
            break
    else:
        program += _answer(allow=True)
    return b"".join(
        struct.pack("<BBhi", code, destination | source << 4, offset, immediate)
        for code, destination, source, offset, immediate in program
    )


def _matches_everything(rule: DeviceRule) -> bool:
    return rule.kind == "a" and rule.major is None and rule.minor is None and set(rule.access) == set(_ACCESS)


def _check(rule: DeviceRule) -> list[Instruction]:
    """Answer if the rule matches, else fall through to the next."""
    tests: list[Instruction] = []
    if rule.kind != "a":
        tests.append((_JUMP_IF_NOT, _TYPE, 0, 0, _TYPES[rule.kind]))
    mask = sum(_ACCESS[letter] for letter in set(rule.access))
    if mask != _EVERY_ACCESS:
        # An allowance must cover all that is wanted; a refusal applies to any part of it.
        tests.append((_MOVE, _SCRATCH, _WANTED, 0, 0))
        tests.append((_AND, _SCRATCH, 0, 0, _EVERY_ACCESS & ~mask if rule.allow else mask))
        tests.append((_JUMP_IF_NOT if rule.allow else _JUMP_IF, _SCRATCH, 0, 0, 0))
    for register, number in ((_MAJOR, rule.major), (_MINOR, rule.minor)):
        if number is not None:
            tests.append((_JUMP_IF_NOT, register, 0, 0, number))
    answer = _answer(allow=rule.allow)
    end = len(tests) + len(answer)
    return [_aimed(test, end - index - 1) for index, test in enumerate(tests)] + answer


def _aimed(instruction: Instruction, distance: int) -> Instruction:
    code, destination, source, _, immediate = instruction
    is_jump = code in {_JUMP_IF, _JUMP_IF_NOT}
    return (code, destination, source, distance, immediate) if is_jump else instruction


def _answer(*, allow: bool) -> list[Instruction]:
    return [(_MOVE_IMMEDIATE, _RESULT, 0, 0, int(allow)), (_EXIT, 0, 0, 0, 0)]


def attach(folder: str, rules: tuple[DeviceRule, ...]) -> None:
    """Put the program on a version 2 group; it lives as long as the group."""
    program = syscalls.bpf_load_device_program(assemble(rules))
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.bpf_attach_device_program(program, group)
    finally:
        os.close(group)
        os.close(program)
