"""System calls that Python 3.11 does not have: one short function each, raising OSError with the call's name.

Numbers from 424 on are the same on every architecture that Linux has. Structures are packed by hand, as the manual
pages give them. ctypes calls keep the interpreter lock only through `PyDLL`; nothing here needs that, since the
runtime has one thread.
"""

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

CLONE_NEWTIME: Final = 0x00000080
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_UNBINDABLE: Final = 1 << 17
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MNT_DETACH: Final = 2

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_ATIME: Final = 0x70  # the mask over the three below; relatime is 0
MOUNT_ATTR_NOATIME: Final = 0x10
MOUNT_ATTR_STRICTATIME: Final = 0x20
MOUNT_ATTR_NODIRATIME: Final = 0x80
MOUNT_ATTR_IDMAP: Final = 0x100000
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x200000

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_RECURSIVE: Final = 0x8000
AT_EMPTY_PATH: Final = 0x1000
OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

PROC_SUPER_MAGIC: Final = 0x9FA0
DEVPTS_SUPER_MAGIC: Final = 0x1CD1

_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_CLOSE_RANGE_CLOEXEC: Final = 4
_SFD_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NAME: Final = 15
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECUREBITS: Final = 28
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_SECBIT_NO_SETUID_FIXUP: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522

_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41}[os.uname().machine]
_RT_SIGACTION: Final = {"x86_64": 13, "aarch64": 134, "riscv64": 134}[os.uname().machine]
_KERNEL_SIGSET_BYTES: Final = 8
_BPF: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}[os.uname().machine]
_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277, "riscv64": 277}[os.uname().machine]
_SECCOMP_SET_MODE_FILTER: Final = 1
_PIDFD_GETFD: Final = 438
_BPF_PROG_TYPE_CGROUP_DEVICE, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI = 15, 6, 2
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _CLOSE_RANGE, _OPENAT2 = 428, 429, 430, 431, 432, 436, 437
_MOUNT_SETATTR: Final = 442

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_long = ctypes.c_long
# Made once: a new array type for each call would cost a fork a hundred page faults.
_statfs = ctypes.create_string_buffer(256)


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)


def _checked(call: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def _syscall(call: str, number: int, *arguments: int | bytes | None) -> int:
    converted = [_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(call, _libc.syscall(_long(number), *converted))


def call(name: str, number: int, *arguments: int | bytes | None) -> int:
    """Any system call by its number, for a module that alone needs it."""
    return _syscall(name, number, *arguments)


def set_default_action(number: int) -> None:
    """rt_sigaction(2): the default action for a signal, also for the two that the C library keeps for itself."""
    _syscall("rt_sigaction", _RT_SIGACTION, number, bytes(32), None, _KERNEL_SIGSET_BYTES)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked("unshare", _libc.unshare(flags))


def setns(fd: int, flags: int) -> None:
    """setns(2): `fd` is a namespace file, or a pidfd with the set of namespaces to join."""
    _checked("setns", _libc.setns(fd, flags))


def setfsuid(uid: int) -> None:
    """setfsuid(2), which tells of a failure only when it is asked again."""
    _libc.setfsuid(uid)
    if _libc.setfsuid(uid) != uid:
        raise OSError(errno.EPERM, f"setfsuid {uid}: {os.strerror(errno.EPERM)}")


def setfsgid(gid: int) -> None:
    """setfsgid(2), likewise."""
    _libc.setfsgid(gid)
    if _libc.setfsgid(gid) != gid:
        raise OSError(errno.EPERM, f"setfsgid {gid}: {os.strerror(errno.EPERM)}")


def set_propagation(path: str, flags: int) -> None:
    """mount(2) as it changes only the propagation of a mount."""
    _checked(f"mount {path}", _libc.mount(None, os.fsencode(path), None, ctypes.c_ulong(flags), None))


def mount(source: str, target: str, kind: str, options: str) -> None:
    """mount(2) of a new file system; the options are its own."""
    arguments = [os.fsencode(text) for text in (source, target, kind, options)]
    result = _libc.mount(*arguments[:3], ctypes.c_ulong(0), arguments[3])
    _checked(f"mount {kind} on {target}", result)


def bind(source: str, target: str) -> None:
    """mount(2) with MS_BIND."""
    result = _libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(MS_BIND), None)
    _checked(f"mount {source} on {target}", result)


def umount2(path: str, flags: int) -> None:
    """umount2(2)."""
    _checked(f"umount {path}", _libc.umount2(os.fsencode(path), flags))


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _syscall("pivot_root", _PIVOT_ROOT, os.fsencode(new), os.fsencode(old))


def open_tree(directory: int, path: str, flags: int) -> int:
    """open_tree(2): with OPEN_TREE_CLONE a detached copy of the mount at `path`."""
    return _syscall(f"open_tree {path}", _OPEN_TREE, directory, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)


def move_mount(mount: int, target: int) -> None:
    """move_mount(2) from a detached mount to the very directory or file that `target` has open."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    _syscall("move_mount", _MOVE_MOUNT, mount, b"", target, b"", flags)


def fsopen(file_system: str) -> int:
    """fsopen(2): begin the configuration of a new file system."""
    return _syscall(f"fsopen {file_system}", _FSOPEN, file_system.encode(), _FSOPEN_CLOEXEC)


def fsconfig_flag(context: int, key: str) -> None:
    """fsconfig(2) with an option that has no value."""
    _syscall(f"fsconfig {key}", _FSCONFIG, context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)


def fsconfig_string(context: int, key: str, value: str) -> None:
    """fsconfig(2) with an option that has a value (of 255 bytes at most)."""
    _syscall(f"fsconfig {key}", _FSCONFIG, context, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)


def fsconfig_create(context: int) -> None:
    """fsconfig(2): make the file system from what was configured."""
    _syscall("fsconfig create", _FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(context: int, attributes: int) -> int:
    """fsmount(2): a detached mount of the new file system."""
    return _syscall("fsmount", _FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)


def mount_setattr(mount: int, *, add: int = 0, remove: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """mount_setattr(2) on an open mount."""
    attributes = struct.pack("QQQQ", add, remove, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _syscall("mount_setattr", _MOUNT_SETATTR, mount, b"", flags, attributes, len(attributes))


def idmap_mount(mount: int, user_namespace: int, *, recursive: bool = False) -> None:
    """mount_setattr(2) with MOUNT_ATTR_IDMAP on a detached mount: ids on disk are taken for ids in the namespace."""
    attributes = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _syscall("mount_setattr idmap", _MOUNT_SETATTR, mount, b"", flags, attributes, len(attributes))


def openat2(directory: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); always close-on-exec."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall(f"openat2 {path}", _OPENAT2, directory, os.fsencode(path), how, len(how))


def close_on_exec_from(first: int) -> None:
    """close_range(2) with CLOSE_RANGE_CLOEXEC: every descriptor from `first` on closes at the next exec."""
    _syscall("close_range", _CLOSE_RANGE, first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)


def fstatfs_type(fd: int) -> int:
    """fstatfs(2): the magic number of the file system (the first word of the structure)."""
    _checked("fstatfs", _libc.fstatfs(fd, _statfs))
    return int.from_bytes(_statfs.raw[:8], "little")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    encoded = name.encode()
    _checked("sethostname", _libc.sethostname(encoded, ctypes.c_size_t(len(encoded))))


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    encoded = name.encode()
    _checked("setdomainname", _libc.setdomainname(encoded, ctypes.c_size_t(len(encoded))))


def signalfd(signals: frozenset[int]) -> int:
    """signalfd(2), non-blocking; the signals must be blocked already."""
    mask = struct.pack("Q", sum(1 << (number - 1) for number in signals)).ljust(128, b"\0")
    return _checked("signalfd", _libc.signalfd(-1, mask, _SFD_FLAGS))


def _prctl(name: str, option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(f"prctl {name}", _libc.prctl(option, *padded))


def set_parent_death_signal(number: int) -> None:
    """PR_SET_PDEATHSIG; cleared by the kernel when the process changes its user."""
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, number)


def set_dumpable(value: int) -> None:
    """PR_SET_DUMPABLE; 0 closes /proc/PID/{exe,fd,mem,…} to everybody without CAP_SYS_PTRACE over us."""
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, value)


def set_keep_capabilities(value: int) -> None:
    """PR_SET_KEEPCAPS: hold the permitted set over the change of user; the next exec resets it."""
    _prctl("PR_SET_KEEPCAPS", _PR_SET_KEEPCAPS, value)


def keep_capabilities_over_uids() -> None:
    """PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP: no change of a user id changes a capability; ends with setns(2)."""
    _prctl("PR_SET_SECUREBITS", _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)


def let_uids_change_capabilities() -> None:
    """PR_SET_SECUREBITS: take that back."""
    _prctl("PR_SET_SECUREBITS", _PR_SET_SECUREBITS, 0)


def set_process_name(name: str) -> None:
    """PR_SET_NAME: what `ps -o comm` shows; 15 bytes."""
    _checked("prctl PR_SET_NAME", _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0))


def set_child_subreaper() -> None:
    """PR_SET_CHILD_SUBREAPER: orphans below us become our children."""
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def set_no_new_privileges() -> None:
    """PR_SET_NO_NEW_PRIVS: no exec may gain privileges any more."""
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


@functools.cache
def capability_known(number: int) -> bool:
    """PR_CAPBSET_READ: whether this kernel has the capability at all."""
    return int(_libc.prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0)) >= 0


def drop_from_bounding_set(number: int) -> None:
    """PR_CAPBSET_DROP."""
    _prctl("PR_CAPBSET_DROP", _PR_CAPBSET_DROP, number)


def clear_ambient_set() -> None:
    """PR_CAP_AMBIENT_CLEAR_ALL."""
    _prctl("PR_CAP_AMBIENT_CLEAR_ALL", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def raise_ambient(number: int) -> None:
    """PR_CAP_AMBIENT_RAISE."""
    _prctl("PR_CAP_AMBIENT_RAISE", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) with sets as bit masks (bit n is capability n)."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    sets = (effective, permitted, inheritable)
    data = struct.pack("6I", *(word & 0xFFFFFFFF for word in sets), *(word >> 32 for word in sets))
    _checked("capset", _libc.capset(header, data))


def bpf_load_device_program(instructions: bytes) -> int:
    """bpf(2), BPF_PROG_LOAD of a BPF_PROG_TYPE_CGROUP_DEVICE program."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_name = ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(code), ctypes.addressof(license_name)
    attributes = struct.pack("IIQQ", _BPF_PROG_TYPE_CGROUP_DEVICE, len(instructions) // 8, *addresses).ljust(128, b"\0")
    return _syscall("bpf load", _BPF, _BPF_PROG_LOAD, attributes, len(attributes))


def bpf_attach_device_program(program: int, cgroup: int) -> None:
    """bpf(2), BPF_PROG_ATTACH to an open cgroup folder, beside the programs that are there."""
    attributes = struct.pack("IIII", cgroup, program, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI)
    _syscall("bpf attach", _BPF, _BPF_PROG_ATTACH, attributes, len(attributes))


def prepared_execve(path: str, arguments: Sequence[str], variables: Mapping[str, str]) -> Callable[[], NoReturn]:
    """execve(2), with all its memory taken beforehand, for a process that may not be able to take any later."""
    program = os.fsencode(path)
    argv = _strings([os.fsencode(argument) for argument in arguments])
    environment = _strings([os.fsencode(f"{name}={value}") for name, value in variables.items()])

    def execve() -> NoReturn:
        _libc.execve(program, argv, environment)
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

    return execve


def _strings(items: list[bytes]) -> "ctypes.Array[ctypes.c_char_p]":
    return (ctypes.c_char_p * (len(items) + 1))(*items, None)


def seccomp_load(program: bytes, flags: int) -> int:
    """seccomp(2), SECCOMP_SET_MODE_FILTER; the listener, if the flags ask for one, else 0."""
    instructions = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("H6xQ", len(program) // 8, ctypes.addressof(instructions))  # struct sock_fprog
    return _syscall("seccomp", _SECCOMP, _SECCOMP_SET_MODE_FILTER, flags, described)


def pidfd_getfd(process: int, number: int) -> int:
    """pidfd_getfd(2): a copy of another process's descriptor; close-on-exec."""
    return _syscall("pidfd_getfd", _PIDFD_GETFD, process, number, 0)


def capget() -> tuple[int, int, int]:
    """capget(2): the effective, permitted and inheritable sets as bit masks."""
    data = ctypes.create_string_buffer(24)
    _checked("capget", _libc.capget(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), data))
    low_effective, low_permitted, low_inheritable, high_effective, high_permitted, high_inheritable = struct.unpack(
        "6I", data.raw
    )
    return (
        low_effective | high_effective << 32,
        low_permitted | high_permitted << 32,
        low_inheritable | high_inheritable << 32,
    )
