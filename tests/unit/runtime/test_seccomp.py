"""`linux.seccomp`: what is read and refused, and that the compiled program answers as the profile says."""

import copy
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import errors, known, seccompprofile
from runtime.fields import Fields
from runtime.seccomp import cache, library, newer, profile
from tests.support import seccomp

NATIVE = seccompprofile.ARCHITECTURES[os.uname().machine][0]
KILL_PROCESS, TRAP, ERRNO, NOTIFY, TRACE, LOG, ALLOW = (
    0x80000000,
    0x00030000,
    0x00050000,
    0x7FC00000,
    0x7FF00000,
    0x7FFC0000,
    0x7FFF0000,
)
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS


def parse(config: dict[str, Any]) -> profile.Profile:
    return profile.parse(Fields(copy.deepcopy(config), "linux.seccomp"))


def compiled(config: dict[str, Any]) -> bytes:
    return library.compile_profile(parse(config))


def number(name: str) -> int:
    found = library.number_of(name, NATIVE)
    assert found is not None, name
    return found


def rule(*names: str, action: str = "SCMP_ACT_ALLOW", **fields: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **fields}


BASE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("mkdir", action="SCMP_ACT_ERRNO")]}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "linux.seccomp.defaultAction: is required"),
    ({"defaultAction": "SCMP_ACT_NO"}, "linux.seccomp.defaultAction: 'SCMP_ACT_NO' is not known"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW has no"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4095}, "linux.seccomp.defaultErrnoRet: must be between 0"),
    (BASE | {"architectures": ["SCMP_ARCH_X86_64", "X86"]}, "linux.seccomp.architectures[1]: 'X86' is not known"),
    (BASE | {"flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}, "linux.seccomp.flags[0]: 'SECCOMP_FILTER_FLAG_NEW"),
    (BASE | {"archMap": []}, "linux.seccomp.archMap: unknown field"),
    (BASE | {"syscalls": [rule()]}, "linux.seccomp.syscalls[0].names: needs at least one"),
    (BASE | {"syscalls": [{"names": ["mkdir"]}]}, "linux.seccomp.syscalls[0].action: is required"),
    (BASE | {"syscalls": [rule("mkdir", errnoRet=1)]}, "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW has no"),
    (
        BASE | {"syscalls": [rule("mkdir", args=[{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}])]},
        "linux.seccomp.syscalls[0].args[0].index: must be between 0 and 5",
    ),
    (
        BASE | {"syscalls": [rule("mkdir", args=[{"index": 0, "value": 0, "op": "EQ"}])]},
        "linux.seccomp.syscalls[0].args[0].op: 'EQ' is not known; use one of SCMP_CMP_NE",
    ),
    (
        BASE | {"syscalls": [rule("mkdir", args=[{"index": 0, "value": 2**64, "op": "SCMP_CMP_EQ"}])]},
        "linux.seccomp.syscalls[0].args[0].value: must be between 0",
    ),
    ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.listenerPath: is required"),
    ({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "x"}, "linux.seccomp.listenerPath: 'x' must be an absolute"),
    (BASE | {"listenerMetadata": "x"}, "linux.seccomp.listenerMetadata: has nowhere to go"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED, ids=[message[14:60] for _, message in REFUSED])
def test_refusal_names_the_field(config: dict[str, Any], message: str) -> None:
    """Whatever the specification does not have is refused with its path."""
    with pytest.raises(errors.InvalidSpec) as caught:
        parse(config)
    assert caught.value.message.startswith(message), caught.value.message


def test_what_only_the_library_can_refuse_is_refused_by_name() -> None:
    """An architecture of another byte order or unknown to it; arguments of a call that it does not know."""
    with pytest.raises(errors.InvalidSpec, match=r"linux.seccomp.architectures\[0\]: SCMP_ARCH_PARISC: libseccomp 2"):
        compiled(BASE | {"architectures": ["SCMP_ARCH_PARISC"]})
    knows = library._token("SCMP_ARCH_SHEB")  # from 2.6 on; but not two orders of bytes in one filter
    why = "refuses it" if knows else "does not know"
    with pytest.raises(errors.InvalidSpec, match=rf"linux.seccomp.architectures\[1\]: SCMP_ARCH_SHEB: .*{why}"):
        compiled(BASE | {"architectures": [NATIVE, "SCMP_ARCH_SHEB"]})
    late = list(newer.NUMBERS)[-1]
    assert library.number_of(late, NATIVE) is None, f"{late} is known by now: take a later call"
    with pytest.raises(errors.InvalidSpec, match=rf"linux.seccomp.syscalls\[0\].args: .* does not know {late}"):
        compiled(
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [rule(late, args=[{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}])],
            }
        )


@pytest.mark.parametrize(
    ("action", "fields", "expected"),
    [
        ("SCMP_ACT_KILL", {}, 0),
        ("SCMP_ACT_KILL_THREAD", {}, 0),
        ("SCMP_ACT_KILL_PROCESS", {}, KILL_PROCESS),
        ("SCMP_ACT_TRAP", {}, TRAP),
        ("SCMP_ACT_ERRNO", {}, EPERM),
        ("SCMP_ACT_ERRNO", {"errnoRet": 0}, ERRNO),
        ("SCMP_ACT_ERRNO", {"errnoRet": 4094}, ERRNO | 4094),
        ("SCMP_ACT_TRACE", {"errnoRet": 0xBEEF}, TRACE | 0xBEEF),
        ("SCMP_ACT_LOG", {}, LOG),
        ("SCMP_ACT_NOTIFY", {}, NOTIFY),
        ("SCMP_ACT_ALLOW", {}, ALLOW),
    ],
)
def test_every_action(action: str, fields: dict[str, int], expected: int) -> None:
    """As a rule's, beside another default, and as the default."""
    listener = {"listenerPath": "/run/agent.sock"}
    other = "SCMP_ACT_ALLOW" if action != "SCMP_ACT_ALLOW" else "SCMP_ACT_KILL_PROCESS"
    program = compiled({"defaultAction": other, "syscalls": [rule("uname", action=action, **fields)], **listener})
    assert seccomp.answer(program, NATIVE, number("uname")) == expected
    assert seccomp.answer(program, NATIVE, number("getpid")) == (ALLOW if other == "SCMP_ACT_ALLOW" else KILL_PROCESS)
    default = {"defaultErrnoRet": fields["errnoRet"]} if fields else {}
    program = compiled({"defaultAction": action, "syscalls": [rule("uname", action=other)], **default, **listener})
    assert seccomp.answer(program, NATIVE, number("getpid")) == expected


HOLDS = {
    "NE": lambda argument, value, _: argument != value,
    "LT": lambda argument, value, _: argument < value,
    "LE": lambda argument, value, _: argument <= value,
    "EQ": lambda argument, value, _: argument == value,
    "GE": lambda argument, value, _: argument >= value,
    "GT": lambda argument, value, _: argument > value,
    "MASKED_EQ": lambda argument, value, value_two: argument & value == value_two,
}
words = st.one_of(st.integers(0, 9), st.integers(2**32 - 2, 2**32 + 2), st.integers(0, 2**64 - 1))
conditions = st.builds(
    lambda index, operator, value, value_two: {
        "index": index,
        "op": f"SCMP_CMP_{operator}",
        "value": value,
        "valueTwo": value_two & value,
    },
    st.integers(0, 5),
    st.sampled_from(sorted(HOLDS)),
    words,
    words,
)


def holds(condition: dict[str, Any], arguments: list[int]) -> bool:
    operator = condition["op"].removeprefix("SCMP_CMP_")
    return HOLDS[operator](arguments[condition["index"]], condition["value"], condition["valueTwo"])


@given(
    wanted=st.lists(conditions, min_size=1, max_size=3, unique_by=lambda item: item["index"]),
    arguments=st.lists(words, min_size=6, max_size=6),
    near=st.booleans(),
)
def test_conditions_must_all_hold(wanted: list[dict[str, Any]], arguments: list[int], *, near: bool) -> None:
    """Every operator, over all 64 bits, on any argument."""
    if near:  # or equality would hardly ever be met
        for condition in wanted:
            arguments[condition["index"]] = condition["value"]
    program = compiled({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("uname", args=wanted)]})
    expected = ALLOW if all(holds(condition, arguments) for condition in wanted) else EPERM
    assert seccomp.answer(program, NATIVE, number("uname"), arguments) == expected


def test_several_conditions_on_one_argument_open_the_call_each() -> None:
    """As runc reads them."""
    either = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (3, 5)]
    program = compiled({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("personality", args=either)]})
    seen = [seccomp.answer(program, NATIVE, number("personality"), [value]) for value in range(7)]
    assert [index for index, action in enumerate(seen) if action == ALLOW] == [3, 5]


def test_later_calls_do_not_exist_or_get_what_the_profile_says() -> None:
    """Between Linux 5.1 and the latest call of the profile the default applies; beyond it nothing exists."""
    late = list(newer.NUMBERS)[-1]
    config = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 5,
        "syscalls": [rule("getpid", "nosuchcall", late), rule("clone3", action="SCMP_ACT_KILL_PROCESS")],
    }
    program = compiled(config)
    assert seccomp.answer(program, NATIVE, newer.NUMBERS[late]) == ALLOW
    assert seccomp.answer(program, NATIVE, number("clone3")) == KILL_PROCESS
    assert seccomp.answer(program, NATIVE, number("unshare")) == ERRNO | 5
    assert seccomp.answer(program, NATIVE, newer.NUMBERS[late] - 1) == ERRNO | 5
    assert seccomp.answer(program, NATIVE, newer.NUMBERS[late] + 1) == ENOSYS
    config["syscalls"] = [rule("getpid")]
    program = compiled(config)
    assert seccomp.answer(program, NATIVE, number("openat2")) == ENOSYS
    assert seccomp.answer(program, NATIVE, number("unshare")) == ERRNO | 5


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_TRAP", "SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])
def test_other_defaults_hold_for_later_calls_too(action: str) -> None:
    """Who kills what is not listed means all of it."""
    program = compiled({"defaultAction": action, "syscalls": [rule("getpid", action="SCMP_ACT_ERRNO")]})
    assert seccomp.answer(program, NATIVE, 9999) == profile.ACTIONS[action]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86")
def test_other_architectures() -> None:
    """Only those of the profile, each with its own numbers; a foreign call kills the process."""
    config = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("mkdir", "removexattrat")]}
    alone = compiled(config)
    together = compiled(config | {"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]})
    for architecture, mkdir in {"SCMP_ARCH_X86_64": 83, "SCMP_ARCH_X86": 39, "SCMP_ARCH_X32": 83}.items():
        for call, expected in {
            mkdir: ALLOW,
            mkdir + 1: EPERM,
            466: ALLOW,
            465: EPERM,
            467: ENOSYS,
            511: ENOSYS,
        }.items():
            assert seccomp.answer(together, architecture, call) == expected, (architecture, call)
            if architecture == NATIVE:
                assert seccomp.answer(alone, architecture, call) == expected
            else:
                assert seccomp.answer(alone, architecture, call) == KILL_PROCESS, (architecture, call)
    readv, preadv = 515, 534  # x32 has these at numbers of its own
    program = compiled(config | {"architectures": ["SCMP_ARCH_X32"], "syscalls": [rule("readv")]})
    assert seccomp.answer(program, "SCMP_ARCH_X32", readv) == ALLOW
    assert seccomp.answer(program, "SCMP_ARCH_X32", preadv) == EPERM
    assert seccomp.answer(program, "SCMP_ARCH_X32", 548) == ENOSYS


def test_the_digest_is_of_the_meaning() -> None:
    """Order of keys and what is left out do not matter; what decides does; what is decided at the load does not."""
    first = parse(BASE)
    same = parse({"syscalls": [{"action": "SCMP_ACT_ERRNO", "errnoRet": 1, "names": ["mkdir"]}], **BASE, "flags": []})
    flagged = parse(BASE | {"flags": ["SECCOMP_FILTER_FLAG_LOG"]})
    other = parse(BASE | {"syscalls": [rule("mkdir", action="SCMP_ACT_ERRNO", errnoRet=2)]})
    assert first.digest == same.digest == flagged.digest
    assert first.digest != other.digest
    assert flagged.flags == 2


@pytest.fixture
def forgetful() -> Iterator[None]:
    """The process's own memory of programs and profiles is empty, before and after."""
    cache._memory.clear()
    known._known.clear()
    yield
    cache._memory.clear()
    known._known.clear()


def damage_nothing(_: Path) -> None:
    pass


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def other_library(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"libseccomp", b"libseccamp", 1))


def garbage(path: Path) -> None:
    path.write_bytes(b"[]\n" + bytes(64))


def open_to_others(path: Path) -> None:
    path.chmod(0o620)


def another_profiles(path: Path) -> None:
    other = parse(BASE | {"defaultAction": "SCMP_ACT_LOG"})
    cache.program(other, str(path.parent.parent))
    (path.parent / other.digest).rename(path)


def link(path: Path) -> None:
    kept = path.rename(path.parent / "kept")
    path.symlink_to(kept)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(
    "damage", [damage_nothing, cut, flip, other_library, garbage, open_to_others, another_profiles, link]
)
def test_a_program_is_compiled_once_and_again_when_its_file_is_bad(tmp_path: Path, damage: Any) -> None:
    """What is in the folder is used as it is, but only if nobody else can have touched it."""
    wanted = parse(BASE)
    made = cache.program(wanted, str(tmp_path))
    path = tmp_path / cache.FOLDER / wanted.digest
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    damage(path)
    before = path.lstat()
    assert cache.program(wanted, str(tmp_path)) == made
    after = path.lstat()
    assert (before.st_ino == after.st_ino) is (damage is damage_nothing)
    assert after.st_mode == 0o100600
    assert {entry.name for entry in path.parent.iterdir()} <= {wanted.digest, "kept"}


@pytest.mark.usefixtures("forgetful")
def test_what_is_remembered_needs_no_file(tmp_path: Path) -> None:
    """The launcher's forks have profile and program from memory; a changed profile is another one."""
    with known.learning():
        found = parse(BASE)
    cache.remember(found, str(tmp_path))
    assert parse(BASE) is found
    assert parse(BASE | {"flags": ["SECCOMP_FILTER_FLAG_LOG"]}) is not found
    program = cache._memory[found.digest]
    (tmp_path / cache.FOLDER / found.digest).unlink()
    assert cache.program(parse(BASE), "/nowhere") is program


@pytest.mark.usefixtures("forgetful")
def test_the_cache_has_a_bound_and_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest programs go; a folder that cannot be made only costs time."""
    monkeypatch.setattr(cache, "MAX_FILES", 3)
    wanted = [parse(BASE | {"syscalls": [rule("mkdir", action="SCMP_ACT_ERRNO", errnoRet=n)]}) for n in range(2, 7)]
    for index, item in enumerate(wanted):
        cache.program(item, str(tmp_path))
        os.utime(tmp_path / cache.FOLDER / item.digest, ns=(index, index))
    assert {entry.name for entry in (tmp_path / cache.FOLDER).iterdir()} == {item.digest for item in wanted[2:]}
    assert cache.program(wanted[0], str(tmp_path / "not" / "there"))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is in the message."""
    monkeypatch.setattr(library, "_NAME", "libnosuch.so.2")
    library._library.cache_clear()
    try:
        with pytest.raises(errors.SetupFailed, match="install libseccomp2"):
            compiled(BASE)
    finally:
        library._library.cache_clear()
