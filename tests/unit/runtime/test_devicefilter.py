"""Device rules as a program, run by an interpreter of its own few instructions and compared with the rules."""

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from runtime import devicefilter
from runtime.resources import DeviceRule

BITS = {"m": 1, "r": 2, "w": 4}
numbers = st.sampled_from([None, 1, 3])
rules = st.lists(
    st.builds(
        DeviceRule,
        allow=st.booleans(),
        kind=st.sampled_from("abc"),
        major=numbers,
        minor=numbers,
        access=st.sampled_from(["r", "w", "m", "rw", "rwm"]),
    ),
    max_size=6,
).map(tuple)


def expected(rules: tuple[DeviceRule, ...], kind: str, wanted: int, major: int, minor: int) -> bool:
    """The last rule that matches."""
    for rule in reversed(rules):
        mask = sum(BITS[letter] for letter in rule.access)
        covers = not wanted & ~mask if rule.allow else bool(wanted & mask)
        if rule.kind in {"a", kind} and rule.major in {None, major} and rule.minor in {None, minor} and covers:
            return rule.allow
    return True


def execute(program: bytes, context: tuple[int, int, int]) -> int:
    """The eight instructions that the assembler uses (kernel: Documentation/bpf/standardization)."""
    registers = [0] * 11
    at = 0
    for _ in range(len(program) // 8):
        code, pair, offset, immediate = struct.unpack_from("<BBhi", program, at * 8)
        destination, source = pair & 15, pair >> 4
        at += 1
        match code:
            case 0x61:
                registers[destination] = context[offset // 4]
            case 0xBF:
                registers[destination] = registers[source]
            case 0xB7:
                registers[destination] = immediate
            case 0x57:
                registers[destination] &= immediate
            case 0x77:
                registers[destination] >>= immediate
            case 0x55:
                at += offset if registers[destination] != immediate else 0
            case 0x15:
                at += offset if registers[destination] == immediate else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(hex(code))
    raise AssertionError("the program has no end")


@given(rules)
def test_program_does_what_the_rules_say(rules: tuple[DeviceRule, ...]) -> None:
    """For every kind, access and number."""
    program = devicefilter.assemble(rules)
    for (kind, number), wanted, major, minor in itertools.product(
        (("b", 1), ("c", 2)), range(1, 8), (1, 3, 136), (1, 3, 9)
    ):
        allowed = execute(program, (wanted << 16 | number, major, minor))
        assert bool(allowed) == expected(rules, kind, wanted, major, minor), (kind, wanted, major, minor)


def test_every_container_has_its_nodes() -> None:
    """null and the terminals are open whatever the rules say; without rules nothing is closed."""
    closed = (DeviceRule(allow=False, kind="a", major=None, minor=None, access="rwm"),)
    program = devicefilter.assemble(devicefilter.whole(closed))
    assert execute(program, (BITS["r"] << 16 | 2, 1, 3))
    assert execute(program, (BITS["r"] << 16 | 2, 136, 77))
    assert not execute(program, (BITS["r"] << 16 | 1, 254, 0))
    assert devicefilter.whole(()) == ()
