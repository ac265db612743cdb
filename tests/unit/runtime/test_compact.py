"""Shorter filters answer as the library's do, for every call of every architecture."""

import itertools
import struct
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from runtime import defaults, errors
from runtime.fields import Fields
from runtime.seccomp import bpf, compact, library, profile
from tests.support import seccomp

TOKENS = (0xC000003E, 0x40000003, 0xC00000B7, 7)
NUMBERS = (*range(600), *range(1 << 30, (1 << 30) + 600), 1 << 31, (1 << 32) - 1)
ARGUMENTS = (
    (),
    (2, 1),
    (0x7E020000,),
    (0x10000000,),
    (38,),
    (40,),
    (16, 2, 17),
    (0xFFFFFFFF,),
    (8, 1 << 40),
    (1 << 63,),
)
NAMES = (
    "read",
    "write",
    "open",
    "clone",
    "personality",
    "socket",
    "ptrace",
    "kill",
    "mount",
    "getpid",
    "time",
    "keyctl",
)


def written(config: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The program before it is made shorter."""
    with monkeypatch.context() as patch:
        patch.setattr(compact, "shorter", lambda program: program)
        return library.compile_profile(profile.parse(Fields(config, "linux.seccomp")))


def same(one: bytes, other: bytes, numbers: Iterable[int], arguments: Iterable[Sequence[int]]) -> bool:
    cases = itertools.product(TOKENS, numbers, arguments)
    return all(seccomp.run(one, *case) == seccomp.run(other, *case) for case in cases)


def around(names: Iterable[str]) -> set[int]:
    """The numbers of these calls on any architecture, and their neighbours'."""
    found = {library.number_of(name, f"SCMP_ARCH_{word}") for name in names for word in ("X86_64", "X86", "AARCH64")}
    numbers = {number + away for number in found if number is not None for away in (-1, 0, 1)}
    return {number for number in numbers if number >= 0} | {number + (1 << 30) for number in numbers} | {(1 << 32) - 1}


def test_the_default_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as long, and the same answers."""
    program = written(defaults.config([], cgroups_path="/x")["linux"]["seccomp"], monkeypatch)
    shorter = compact.shorter(program)
    assert len(shorter) < len(program) / 2
    assert same(program, shorter, NUMBERS, ARGUMENTS)


conditions = st.lists(
    st.fixed_dictionaries(
        {
            "index": st.integers(0, 5),
            "value": st.sampled_from([0, 1, 2, 8, 38, 1 << 32, (1 << 64) - 1]),
            "valueTwo": st.sampled_from([0, 1, 8]),
            "op": st.sampled_from(["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_GE", "SCMP_CMP_MASKED_EQ"]),
        }
    ),
    max_size=2,
    unique_by=lambda item: item["index"],
)
rules = st.lists(
    st.fixed_dictionaries(
        {
            "names": st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
            "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_TRAP", "SCMP_ACT_KILL_PROCESS"]),
            "args": conditions,
        }
    ),
    max_size=6,
)


@given(
    default=st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG"]),
    rows=rules,
    architectures=st.lists(
        st.sampled_from(["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"]), max_size=3, unique=True
    ),
)
@settings(max_examples=40, deadline=None)
def test_any_profile(default: str, rows: list[dict[str, object]], architectures: list[str]) -> None:
    """Whatever is asked of whichever arguments."""
    config = {"defaultAction": default, "architectures": architectures, "syscalls": rows}
    with pytest.MonkeyPatch.context() as patch:
        try:
            program = written(config, patch)
        except errors.InvalidSpec:  # the library refuses, for example, two answers to one call
            reject()
    shorter = compact.shorter(program)
    assert len(shorter) <= len(program)
    assert same(program, shorter, around(NAMES), ARGUMENTS[:5])


def test_what_is_not_understood_is_left_alone() -> None:
    """A program with any other instruction, such as one that uses the second register."""
    body = [(0x20, 0, 0, 4), (0x07, 0, 0, 0), (0x06, 0, 0, 0x7FFF0000)]
    program = b"".join(struct.pack("<HBBI", *each) for each in body)
    assert compact.shorter(program) == program


def test_mistakes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is checked: were a range cut wrongly, the library's program would be used."""
    program = written(defaults.config([], cgroups_path="/x")["linux"]["seccomp"], monkeypatch)
    real = compact._ranges

    def wrong(old: list[bpf.Instruction], architecture: int, cuts: list[int]) -> list[compact.Range]:
        found = real(old, architecture, cuts)
        if architecture == TOKENS[0]:
            found[1] = found[1]._replace(first=found[1].first + 1)
        return found

    assert compact.shorter(program) != program
    monkeypatch.setattr(compact, "_ranges", wrong)
    assert compact.shorter(program) == program
