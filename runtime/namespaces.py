"""Namespaces to join, and the pid namespace, which is entered by a parent for its children."""

import os
from typing import Final

from runtime import errors, syscalls
from runtime.spec import Namespace, Spec

_JOIN_ORDER: Final = ("ipc", "uts", "network", "cgroup", "time")


def joined(spec: Spec) -> list[Namespace]:
    """Those that a process joins by itself, by their paths."""
    return [namespace for namespace in spec.namespaces if namespace.path and namespace.kind in _JOIN_ORDER]


def enter_pid_namespace(wanted: Spec) -> None:
    """The caller stays where it is; its children are born into the namespace, the first as its process 1."""
    for namespace in wanted.namespaces:
        if namespace.kind != "pid":
            continue
        with errors.step("linux.namespaces: pid"):
            if not namespace.path:
                syscalls.unshare(syscalls.CLONE_NEWPID)
                return
            fd = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
            syscalls.setns(fd, syscalls.CLONE_NEWPID)
            os.close(fd)
