"""`linux.seccomp` of the OCI runtime specification as values (config-linux, "Seccomp").

As everywhere, what a field does not allow is refused with its path. Names of system calls are no such field: a profile
is written for many kernels, and what this one lacks nobody can call.
"""

import errno
import json
from _blake2 import blake2b  # hashlib has it too, but loads OpenSSL first: 4 ms of each command
from typing import Any, Final

from runtime import known
from runtime.fields import Fields
from runtime.values import frozen

# The kernel's answers (linux/seccomp.h); the low 16 bits are data.
_KILL_THREAD: Final = 0x00000000
_KILL_PROCESS: Final = 0x80000000
_TRAP: Final = 0x00030000
_ERRNO: Final = 0x00050000
_NOTIFY: Final = 0x7FC00000
_TRACE: Final = 0x7FF00000
_LOG: Final = 0x7FFC0000
_ALLOW: Final = 0x7FFF0000

ACTIONS: Final = {
    "SCMP_ACT_KILL": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_TRAP": _TRAP,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_ALLOW": _ALLOW,
    "SCMP_ACT_LOG": _LOG,
    "SCMP_ACT_NOTIFY": _NOTIFY,
}
OPERATORS: Final = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
"""With libseccomp's numbers."""

ARCHITECTURES: Final = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X "
        "PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
)
"""All of the specification's. Which of them a filter on this machine can hold, libseccomp says."""

FLAGS: Final = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}

_MAX_ERRNO: Final = 4094  # libseccomp stops one below the kernel
_WITH_DATA: Final = {_ERRNO: _MAX_ERRNO, _TRACE: 0xFFFF}


@frozen
class Condition:
    """A comparison of one argument of a call; `MASKED_EQ` compares `argument & value` with `value_two`."""

    index: int
    operator: int
    value: int
    value_two: int


@frozen
class Rule:
    """What calls of these names get, when all conditions hold."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...]
    path: str  # the field, for messages


@frozen
class Profile:
    """The whole filter."""

    default_action: int
    architectures: tuple[str, ...]
    flags: int
    rules: tuple[Rule, ...]
    listener_path: str
    listener_metadata: str
    digest: str  # of all that decides over the program

    @property
    def notifies(self) -> bool:
        """Whether a call may be put before the agent at the listener's path."""
        return _NOTIFY in {self.default_action, *(rule.action for rule in self.rules)}

    @property
    def answers_errno(self) -> bool:
        """Whether a call without a rule fails with an error, other than that it does not exist."""
        return self.default_action & ~0xFFFF == _ERRNO and self.default_action & 0xFFFF != errno.ENOSYS


def answer(number: int) -> int:
    """The action that makes a call fail with this errno."""
    return _ERRNO | number


def parse(fields: Fields) -> Profile:
    """Read a `linux.seccomp` object; raises InvalidSpec."""
    return known.read(fields, _parse)


def _parse(fields: Fields) -> Profile:
    default_action = _action(fields, "defaultAction", "defaultErrnoRet")
    architectures = fields.texts("architectures")
    for index, word in enumerate(architectures):
        _known(fields, f"architectures[{index}]", word, ARCHITECTURES)
    flags = 0
    for index, word in enumerate(fields.texts("flags")):
        flags |= FLAGS[_known(fields, f"flags[{index}]", word, FLAGS)]
    rules = tuple(_rule(item) for item in fields.children("syscalls"))
    profile = Profile(
        default_action=default_action,
        architectures=architectures,
        flags=flags,
        rules=rules,
        listener_path=fields.text("listenerPath", default=""),
        listener_metadata=fields.text("listenerMetadata", default=""),
        digest=_digest(default_action, architectures, rules),
    )
    fields.finish()
    _check_listener(fields, profile)
    return profile


def _check_listener(fields: Fields, profile: Profile) -> None:
    if profile.listener_metadata and not profile.listener_path:
        raise fields.refuse("listenerMetadata", "has nowhere to go without a listenerPath")
    if not profile.notifies:
        return
    if not profile.listener_path:
        raise fields.refuse("listenerPath", "is required where an action is SCMP_ACT_NOTIFY")
    if not profile.listener_path.startswith("/"):
        raise fields.refuse("listenerPath", f"{profile.listener_path!r} must be an absolute path")


def _digest(default_action: int, architectures: tuple[str, ...], rules: tuple[Rule, ...]) -> str:
    """Of a canonical text: two profiles that say the same in other words of JSON share one program."""
    told: list[Any] = [default_action, architectures]
    for rule in rules:
        conditions = [(item.index, item.operator, item.value, item.value_two) for item in rule.conditions]
        told.append((rule.names, rule.action, conditions))
    return digest(json.dumps(told).encode())


def digest(content: bytes) -> str:
    """64 hexadecimal digits that stand for some bytes."""
    return blake2b(content, digest_size=32).hexdigest()


def _rule(fields: Fields) -> Rule:
    rule = Rule(
        names=fields.texts("names"),
        action=_action(fields, "action", "errnoRet"),
        conditions=tuple(_condition(item) for item in fields.children("args")),
        path=fields.path,
    )
    fields.finish()
    if not rule.names:
        raise fields.refuse("names", "needs at least one system call")
    return rule


def _action(fields: Fields, name: str, data_name: str) -> int:
    word = _known(fields, name, fields.text(name), ACTIONS)
    action = ACTIONS[word]
    if not fields.has(data_name):
        return action | errno.EPERM if action in _WITH_DATA else action
    if action not in _WITH_DATA:
        raise fields.refuse(data_name, f"{word} has no error number; remove it, or use SCMP_ACT_ERRNO")
    return action | fields.number(data_name, low=0, high=_WITH_DATA[action])


def _condition(fields: Fields) -> Condition:
    condition = Condition(
        index=fields.number("index", low=0, high=5),
        value=fields.number("value", low=0, high=2**64 - 1),
        value_two=fields.number("valueTwo", low=0, high=2**64 - 1, default=0),
        operator=OPERATORS[_known(fields, "op", fields.text("op"), OPERATORS)],
    )
    fields.finish()
    return condition


def _known(fields: Fields, name: str, word: str, known: Any) -> str:
    if word not in known:
        raise fields.refuse(name, f"{word!r} is not known; use one of {', '.join(known)}")
    return word
