"""libseccomp, as far as a program is made with it (seccomp_init(3), seccomp_rule_add(3), seccomp_export_bpf(3)).

It is loaded when the first profile is compiled, which is in a process that ends soon; loading the program is ours.
"""

import collections
import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from typing import Final

from runtime import errors
from runtime.seccomp import compact, newer
from runtime.seccomp.profile import Condition, Profile, Rule

_NAME: Final = "libseccomp.so.2"
_NOT_A_CALL: Final = -1
_KILL_PROCESS: Final = 0x80000000

# enum scmp_filter_attr
_BAD_ARCHITECTURE: Final = 2
_OPTIMIZE: Final = 8
_TELL_ERRNO: Final = 9
_BINARY_TREE: Final = 2

_Context = ctypes.c_void_p


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_NAME)
    except OSError as error:
        message = f"linux.seccomp: {_NAME} cannot be loaded ({error}); install libseccomp2"
        raise errors.SetupFailed(message, step="linux.seccomp") from None
    library.seccomp_init.restype = _Context
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [_Context]
    library.seccomp_attr_set.argtypes = [_Context, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_exist.argtypes = [_Context, ctypes.c_uint32]
    library.seccomp_arch_add.argtypes = [_Context, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        _Context,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [_Context, ctypes.c_int]
    return library


def version() -> str:
    """The library's, as "2.5.4"."""
    library = _library()
    library.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint * 3)
    return ".".join(str(number) for number in library.seccomp_version().contents)


def number_of(name: str, architecture: str) -> int | None:
    """The number of a system call on an architecture; None when the library knows none there."""
    number = int(_library().seccomp_syscall_resolve_name_arch(_token(architecture), name.encode()))
    return number if number >= 0 else None


def name_of(number: int, architecture: str) -> str | None:
    """The other way round."""
    library = _library()
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    name = library.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(_token(architecture)), number)
    return name.decode() if name else None


def compile_profile(profile: Profile) -> bytes:
    """The program, an array of `struct sock_filter`; raises InvalidSpec where the library cannot do what is asked."""
    library = _library()
    with _context(profile.default_action) as context:
        _set(context, _TELL_ERRNO, 1)
        _set(context, _BAD_ARCHITECTURE, _KILL_PROCESS)  # a thread that vanishes alone leaves its locks held
        _set(context, _OPTIMIZE, _BINARY_TREE)
        _add_architectures(context, profile)
        unknown = [pair for rule in profile.rules for pair in _add_rule(context, profile, rule)]
        body = _export(context)
    native = int(library.seccomp_arch_native())
    architectures = [word for word in newer.TOKENS if newer.TOKENS[word] == native or word in profile.architectures]
    return compact.shorter(newer.prelude(profile, unknown, architectures, _highest(profile, unknown)) + body)


@contextlib.contextmanager
def _context(default_action: int) -> Iterator[int]:
    context = _library().seccomp_init(default_action)
    if not context:
        raise errors.InvalidSpec(
            f"linux.seccomp.defaultAction: libseccomp {version()} or this kernel has no such action"
        )
    try:
        yield context
    finally:
        _library().seccomp_release(context)


def _set(context: int, attribute: int, value: int) -> None:
    _check("linux.seccomp", _library().seccomp_attr_set(context, attribute, value))


def _check(path: str, result: int) -> None:
    if result < 0:
        raise errors.InvalidSpec(f"{path}: libseccomp {version()} refuses it: {os.strerror(-result)}")


def _token(architecture: str) -> int:
    return int(_library().seccomp_arch_resolve_name(architecture.removeprefix("SCMP_ARCH_").lower().encode()))


def _add_architectures(context: int, profile: Profile) -> None:
    """Beside the machine's own, which is always there: the container's program is started by it."""
    for index, word in enumerate(profile.architectures):
        path = f"linux.seccomp.architectures[{index}]: {word}"
        token = _token(word)
        if not token:
            raise errors.InvalidSpec(f"{path}: libseccomp {version()} does not know it; remove it")
        if not _library().seccomp_arch_exist(context, token):
            continue
        _check(path, _library().seccomp_arch_add(context, token))


def _add_rule(context: int, profile: Profile, rule: Rule) -> list[tuple[str, int]]:
    """Add a rule; returns the names of later calls that the library does not know, with what they get."""
    if rule.action == profile.default_action:
        return []  # it says nothing, and the library would refuse it
    groups = _comparisons(rule.conditions)
    unknown = []
    for name in rule.names:
        number = int(_library().seccomp_syscall_resolve_name(name.encode()))
        if number != _NOT_A_CALL:
            for group in groups:
                added = _library().seccomp_rule_add_array(context, rule.action, number, len(group), group)
                _check(f"{rule.path}: {name}", added)
        elif name in newer.NUMBERS:
            if rule.conditions:
                raise errors.InvalidSpec(
                    f"{rule.path}.args: libseccomp {version()} does not know {name}, so its arguments cannot be "
                    "compared; remove args, or install a later libseccomp2"
                )
            unknown.append((name, rule.action))
    return unknown


def _comparisons(conditions: tuple[Condition, ...]) -> list[ctypes.Array[_Comparison]]:
    """All must hold, so they go into one rule; but with several on one argument each has a rule of its own, which is
    how runc reads such profiles, and they were written for it."""
    found = [_Comparison(item.index, item.operator, item.value, item.value_two) for item in conditions]
    counts = collections.Counter(item.index for item in conditions)
    if counts and max(counts.values()) > 1:
        return [(_Comparison * 1)(item) for item in found]
    return [(_Comparison * len(found))(*found)]


def _highest(profile: Profile, unknown: list[tuple[str, int]]) -> int:
    """The latest call of the common numbers that the profile names."""
    numbers = [newer.NUMBERS[name] for name, _ in unknown]
    for rule in profile.rules:
        numbers += [int(_library().seccomp_syscall_resolve_name(name.encode())) for name in rule.names]
    return max(numbers, default=0)


def _export(context: int) -> bytes:
    file = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        _check("linux.seccomp", _library().seccomp_export_bpf(context, file))
        return os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)
