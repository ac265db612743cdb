"""A plain container's first process as a list of system calls: what `firstprocess` does, decided beforehand.

The order is `firstprocess`'s, and its reasons stand there. Two rules. What may be left out, and what can be looked up
outside, is decided here; a step only does. And a step that fails explains nothing: whoever executes the list starts
again with `firstprocess`, which can.

It is written in two parts. The first leads into the namespaces and the cgroup and makes file systems there, which takes
the kernel long and needs little to be known; it is executed while the outside makes what the second one needs. Until
then the process has the descriptors of whoever executes the list, and so those that arrive meanwhile.
"""

import os
import resource
import signal
import struct
from typing import Final

from runtime import capabilities, rootfs, syscalls
from runtime.lookup import DEFAULT_PATH
from runtime.script.parts import Before, Inside
from runtime.script.steps import Cell, Script
from runtime.seccomp import filter as filters
from runtime.spec import Mount, sysctl_namespace

_AT_FDCWD: Final = syscalls.AT_FDCWD
_CLOEXEC: Final = os.O_CLOEXEC
_RESOLVE_INSIDE: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_SYMLINKS
_BENEATH: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS


def _how(flags: int, resolve: int) -> tuple[bytes, int]:
    """openat2's `struct open_how`, and its size."""
    return struct.pack("<QQQ", flags | _CLOEXEC, 0, resolve), 24


_PLACE: Final = _how(os.O_PATH, _RESOLVE_INSIDE)
_NULL: Final = _how(os.O_RDWR, _RESOLVE_INSIDE)
_PARAMETER: Final = _how(os.O_WRONLY, _BENEATH)
_WORKING_FOLDER: Final = _how(os.O_PATH | os.O_DIRECTORY, syscalls.RESOLVE_NO_MAGICLINKS)
_BOTH_EMPTY: Final = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
_CLONE_THIS: Final = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | _CLOEXEC
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6
_PR: Final = {"death": 1, "dumpable": 4, "keep": 8, "drop": 24, "no_new": 38, "ambient": 47}
_AMBIENT_RAISE, _AMBIENT_CLEAR = 2, 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_CLOSE_RANGE_CLOEXEC: Final = 4
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_SIG_SETMASK, _SIGNAL_SET_BYTES = 2, 8
_CLONE_VM, _CLONE_PARENT, _CLONE_PARENT_SETTID = 0x100, 0x8000, 0x100000
SHARED_FILES: Final = 0x400
"""A flag of clone(2) and unshare(2)."""
_AF_INET, _SOCK_DGRAM = 2, 2


class Writer:
    """The list in one line, in the order in which it is executed."""

    def __init__(self, script: Script, before: Before) -> None:
        self._call = script.call
        self._answer = script.answer
        self._script = script
        self._before = before
        self._spec = before.spec
        self._made: dict[str, Cell] = {}  # by the mount's field: what is to be put there

    def begin(self) -> Cell | None:
        """The first part. A cell for the pid of the process that follows the one that was cloned, if there is one."""
        self._oom_score()
        self._hard_limits()
        for namespace, fd in self._before.joined:
            self._call("setns", fd, namespace.flag)
        self._parameters(made=False)
        self._show_joined()
        doors = [self._answer("openat", _AT_FDCWD, door, os.O_WRONLY | _CLOEXEC) for door in self._before.doors]
        born = self._be_born()
        self._call("setsid")
        self._die_with_the_monitor()
        for door in doors:
            self._call("write", door, "0", 1)
        self._namespaces()
        self._new_file_systems()
        self._call("poll", self._script.cell_address(self._before.wake), 2, -1)
        self._end_without_the_monitor()
        self._call("unshare", SHARED_FILES)
        self._call("write", self._before.told, "1", 1)
        return born

    def go_on(self, inside: Inside) -> Cell:
        """The second part. A cell that holds an answer once only the program's execution is left."""
        self._inside = inside
        self._made.update(inside.mounts)
        self._root()
        for mount in self._spec.mounts:
            self._mount(mount)
        self._restrict()
        self._names()
        self._parameters(made=True)
        self._enter()
        self._streams()
        self._limits()
        self._become()
        self._die_with_the_monitor()
        folder = self._answer("openat2", _AT_FDCWD, self._spec.process.cwd, *_WORKING_FOLDER)
        self._call("fchdir", folder)
        self._signals()
        ready = self._answer("close_range", 3, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)
        if inside.program:
            ready = self._filter()
        self._execute()
        return ready

    # Before the host is left

    def _oom_score(self) -> None:
        score = self._spec.process.oom_score_adj
        if score is not None:
            text = str(score)
            file = self._answer("openat", _AT_FDCWD, "/proc/self/oom_score_adj", os.O_WRONLY | _CLOEXEC)
            self._call("write", file, text, len(text))

    def _hard_limits(self) -> None:
        """With the host's privileges; without a user namespace they are still there later."""
        for limit in self._spec.process.rlimits if self._before.user_namespace is not None else ():
            soft, hard = resource.getrlimit(limit.resource)
            if hard != resource.RLIM_INFINITY and (limit.hard > hard or limit.hard == resource.RLIM_INFINITY):
                self._limit(limit.resource, soft, limit.hard)

    def _show_joined(self) -> None:
        """A user namespace may not mount what shows a namespace that is not its own."""
        if self._before.user_namespace is not None:
            for mount in self._spec.mounts:
                if rootfs.is_of_shared_namespace(self._spec, mount):
                    self._made[mount.path] = self._new_file_system(mount)

    def _limit(self, number: int, soft: int, hard: int) -> None:
        values = struct.pack("<2Q", soft & _UNSIGNED, hard & _UNSIGNED)
        self._call("prlimit64", 0, number, values, 0)

    def _be_born(self) -> Cell | None:
        """Into the user namespace, and by one more clone into a pid namespace that belongs to it."""
        namespace = self._before.user_namespace
        if namespace is None:
            return None
        assert self._before.outer_root is not None, "a user namespace without a root"
        for pipe in self._before.pipes:
            self._call("fchown", pipe.cell, *self._before.outer_root)
        self._call("setns", namespace, syscalls.CLONE_NEWUSER)
        self._call("setgroups", 0, 0)
        self._call("setresgid", 0, 0, 0)
        self._call("setresuid", 0, 0, 0)
        self._close_memory()
        pid = self._script.cell()
        flags = _CLONE_VM | SHARED_FILES | _CLONE_PARENT | _CLONE_PARENT_SETTID | signal.SIGCHLD
        flags |= syscalls.CLONE_NEWPID if self._spec.makes("pid") else 0
        self._call("clone", flags, 0, self._script.cell_address(pid), 0, 0, leave=True)
        return pid

    def _close_memory(self) -> None:
        """It is the monitor's, too. A change of user makes it what fs.suid_dumpable says (proc(5))."""
        self._call("prctl", _PR["dumpable"], 0, 0, 0, 0)

    def _die_with_the_monitor(self) -> None:
        self._call("prctl", _PR["death"], signal.SIGKILL, 0, 0, 0)
        self._end_without_the_monitor()

    def _end_without_the_monitor(self) -> None:
        """It may have ended before the kernel was told that this is to be its end, too."""
        self._call("poll", self._script.cell_address(self._before.monitor), 1, 0, leave=True)

    def _namespaces(self) -> None:
        flags = 0
        for namespace in self._spec.namespaces:
            if not namespace.path and namespace.kind not in {"pid", "user"}:
                flags |= namespace.flag
        self._call("unshare", flags)
        if self._spec.makes("network"):
            any_socket = self._answer("socket", _AF_INET, _SOCK_DGRAM | _CLOEXEC, 0)
            self._call("ioctl", any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
        self._call("mount", 0, "/", 0, syscalls.MS_REC | syscalls.MS_PRIVATE, 0)

    def _new_file_systems(self) -> None:
        """Those that are made of nothing but their options; what comes from outside is put in its place with them."""
        for mount in self._spec.mounts:
            if mount.path not in self._made and not rootfs.comes_from_outside(mount):
                self._made[mount.path] = self._new_file_system(mount)

    # The tree

    def _root(self) -> None:
        stage = self._answer("openat", _AT_FDCWD, self._inside.stage, os.O_PATH | os.O_DIRECTORY | _CLOEXEC)
        self._move(self._inside.root, stage)

    def _mount(self, mount: Mount) -> None:
        board = self._inside.boards.get(mount.path)
        if board is not None:
            self._move(board.cell, self._open(mount.destination))
            for name, group in board.groups:
                self._move(group, self._open(f"{mount.destination}/{name}"))
            self._set(board.cell, add=mount.options.add)
            return
        self._move(self._made[mount.path], self._open(mount.destination))

    def _new_file_system(self, mount: Mount) -> Cell:
        options = mount.options
        context = self._answer("fsopen", mount.kind, 1)
        if mount.source:
            self._call("fsconfig", context, _SET_STRING, "source", mount.source, 0)
        for word in options.data:
            key, equals, value = word.partition("=")
            self._call("fsconfig", context, _SET_STRING if equals else _SET_FLAG, key, value if equals else 0, 0)
        self._call("fsconfig", context, _CMD_CREATE, 0, 0, 0)
        made = self._answer("fsmount", context, 1, options.add)
        if options.propagation:
            self._set(made, propagation=options.propagation, recursive=options.propagation_recursive)
        if options.add_recursive or options.remove_recursive:
            self._set(made, add=options.add_recursive, remove=options.remove_recursive, recursive=True)
        return made

    def _restrict(self) -> None:
        """What is not there is left out, with all that would be done to it."""
        for path in self._spec.readonly_paths:
            target = self._open(path, absent=4)
            copy = self._answer("open_tree", target, "", _CLONE_THIS | syscalls.AT_RECURSIVE)
            self._set(copy, add=syscalls.MOUNT_ATTR_RDONLY, recursive=True)
            self._move(copy, target)
        self._mask()
        if self._spec.root_readonly:
            self._set(self._inside.root, add=syscalls.MOUNT_ATTR_RDONLY)

    def _mask(self) -> None:
        if self._inside.masked_files:
            null = self._open("/dev/null")
            for path in self._inside.masked_files:
                self._cover(path, null)
        folders = self._inside.masked_folders
        if folders:
            context = self._answer("fsopen", "tmpfs", 1)
            for key, value in (("mode", "755"), ("size", "4096")):
                self._call("fsconfig", context, _SET_STRING, key, value, 0)
            self._call("fsconfig", context, _CMD_CREATE, 0, 0, 0)
            empty = self._answer("fsmount", context, 1, syscalls.MOUNT_ATTR_RDONLY)
            # Only what is attached may be copied before Linux 6.15.
            self._move(empty, self._open(folders[0]))
            for path in folders[1:]:
                self._cover(path, empty)

    def _cover(self, path: str, cover: Cell) -> None:
        target = self._open(path, absent=3)
        self._move(self._answer("open_tree", cover, "", _CLONE_THIS), target)

    def _names(self) -> None:
        for call, name in (("sethostname", self._spec.hostname), ("setdomainname", self._spec.domainname)):
            if name:
                self._call(call, name, len(name.encode()))

    def _parameters(self, *, made: bool) -> None:
        for key, value in self._spec.sysctl.items():
            if self._spec.makes(sysctl_namespace(key) or "") == made:
                path = key if "/" in key else key.replace(".", "/")
                assert self._before.proc is not None, "kernel parameters without a procfs"
                file = self._answer("openat2", self._before.proc, f"sys/{path}", *_PARAMETER)
                self._call("write", file, value, len(value.encode()))

    def _enter(self) -> None:
        self._call("fchdir", self._inside.root)
        self._call("pivot_root", ".", ".")
        self._call("umount2", ".", syscalls.MNT_DETACH)
        self._call("chdir", "/")

    # The process

    def _streams(self) -> None:
        null: Cell | None = None
        for number, given in enumerate(self._before.streams):
            if given is None and null is None:
                null = self._answer("openat2", _AT_FDCWD, "/dev/null", *_NULL)
            stream = given if given is not None else null
            assert stream is not None
            self._call("dup2", stream, number)

    def _limits(self) -> None:
        for limit in self._spec.process.rlimits:
            self._limit(limit.resource, limit.soft, limit.hard)

    def _become(self) -> None:
        process, identity = self._spec.process, self._inside.identity
        for pipe in self._before.pipes:
            owner = pipe.owner if self._before.outer_root is None else 0
            if owner != identity.uid:
                self._call("fchown", pipe.cell, identity.uid, identity.gid)
        sets = process.capabilities
        if sets is not None:
            self._script.repeat("prctl", [(_PR["drop"], number, 0, 0, 0) for number in capabilities.missing(sets)])
        if process.no_new_privileges:
            self._call("prctl", _PR["no_new"], 1, 0, 0, 0)
        self._call("prctl", _PR["keep"], 1, 0, 0, 0)
        groups = struct.pack(f"<{len(identity.groups)}I", *identity.groups)
        self._call("setgroups", len(identity.groups), groups or 0)
        self._call("setresgid", identity.gid, identity.gid, identity.gid)
        self._call("setresuid", identity.uid, identity.uid, identity.uid)
        self._close_memory()
        self._call("prctl", _PR["keep"], 0, 0, 0, 0)
        if sets is not None:
            self._capabilities(sets, beside=self._for_the_filter())
            self._ambient(sets)
        self._call("umask", process.user.umask)

    def _for_the_filter(self) -> int:
        """The capabilities that loading it takes, beside those that the program gets (`filter.needs`)."""
        return 0 if self._spec.process.no_new_privileges or not self._inside.program else filters.SYS_ADMIN

    def _capabilities(self, sets: capabilities.Capabilities, *, beside: int = 0) -> None:
        words = (sets.effective | beside, sets.permitted | beside, sets.inheritable)
        data = struct.pack("<6I", *(word & 0xFFFFFFFF for word in words), *(word >> 32 for word in words))
        self._call("capset", struct.pack("<Ii", _CAPABILITY_VERSION_3, 0), data)

    def _ambient(self, sets: capabilities.Capabilities) -> None:
        self._call("prctl", _PR["ambient"], _AMBIENT_CLEAR, 0, 0, 0)
        possible = sets.ambient & sets.permitted & sets.inheritable
        for number in range(len(capabilities.NAMES)):
            if possible >> number & 1:
                self._call("prctl", _PR["ambient"], _AMBIENT_RAISE, number, 0, 0)

    def _signals(self) -> None:
        """Python ignores these two, and what is ignored stays ignored over an exec."""
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            self._call("rt_sigaction", number, bytes(32), 0, _SIGNAL_SET_BYTES)
        self._call("rt_sigprocmask", _SIG_SETMASK, bytes(_SIGNAL_SET_BYTES), 0, _SIGNAL_SET_BYTES)

    def _filter(self) -> Cell:
        program = self._inside.program
        instructions = self._script.place(program)
        described = struct.pack("<H6xQ", len(program) // 8, instructions.address)
        loaded = self._answer("seccomp", 1, self._inside.filter_flags, described)
        sets = self._spec.process.capabilities
        if sets is not None and self._for_the_filter():
            self._capabilities(sets)
        return loaded

    def _execute(self) -> None:
        """Along PATH, as execvp(3) does; the last place must be it."""
        variables = self._inside.variables
        arguments = self._script.strings([os.fsencode(word) for word in self._spec.process.args])
        environment = self._script.strings([os.fsencode(f"{name}={value}") for name, value in variables.items()])
        name = self._spec.process.args[0]
        places = [name]
        if "/" not in name:
            places = [f"{folder or '.'}/{name}" for folder in variables.get("PATH", DEFAULT_PATH).split(":")]
        for path in places[:-1]:
            self._call("execve", path, arguments, environment, absent=1)
        self._call("execve", places[-1], arguments, environment)

    # Short names

    def _move(self, mount: Cell, target: Cell) -> None:
        self._call("move_mount", mount, "", target, "", _BOTH_EMPTY)

    def _open(self, path: str, *, absent: int = 0) -> Cell:
        return self._answer("openat2", self._inside.root, path, *_PLACE, absent=absent)

    def _set(
        self, mount: Cell, *, add: int = 0, remove: int = 0, propagation: int = 0, recursive: bool = False
    ) -> None:
        attributes = struct.pack("<QQQQ", add, remove, propagation, 0)
        flags = syscalls.AT_EMPTY_PATH | (syscalls.AT_RECURSIVE if recursive else 0)
        self._call("mount_setattr", mount, "", flags, attributes, len(attributes))


_UNSIGNED: Final = (1 << 64) - 1
