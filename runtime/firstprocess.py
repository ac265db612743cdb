"""The container's first process, from its fork in the monitor to its program.

    monitor                                first process
    ───────                                ─────────────
    fork (its pid namespace is there)  ──►
                                           cgroup, namespaces, file tree, user …
                                       ◄── {"created": true} [terminal's master]   or {"error": …}
    {"start": true}                    ──► (may have been sent long before)
                                       ◄── end of file: the program runs           or {"error": …}

One rule: the steps stand in one line, in the only order that works, and each says why it stands there.
"""

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final, NoReturn

from runtime import errors, program, rootfs, syscalls
from runtime.cgroups import Cgroup
from runtime.seccomp import filter as filters
from runtime.spec import Spec
from runtime.terms import SUPERVISED, Terms

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_JOIN_ORDER: Final = ("ipc", "uts", "network", "cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that the first process needs to know. `stdio` holds descriptors; -1 means /dev/null."""

    spec: Spec
    tree: rootfs.Tree
    cgroup: Cgroup
    stdio: tuple[int, int, int]
    order: filters.Order | None
    terms: Terms = SUPERVISED


def run(plan: Plan, monitor: socket.socket) -> NoReturn:
    """Become the container's program, or tell the monitor why not."""
    program.attempt(lambda: _become_program(plan, monitor), monitor)


def _become_program(plan: Plan, monitor: socket.socket) -> NoReturn:
    spec, process = plan.spec, plan.spec.process
    # A session of its own first: signals to the monitor's group must not reach the container.
    os.setsid()
    plan.terms.bind_life()
    # The kernel applies modes as asked for from here on.
    os.umask(0)
    # While the host's files can be seen, and on the host's account: compiling takes more memory than some limits allow.
    wanted = plan.order.fetch() if plan.order is not None else None
    # Into the cgroup before the cgroup namespace is made, since that takes the group it is made in as its root; and
    # before anything is allocated on the container's account.
    plan.cgroup.enter()
    # Both use the host's /proc and the host's privileges.
    program.adjust_oom_score(process)
    _join_namespaces(spec)
    _make_namespaces(spec)
    if spec.makes("network"):
        _bring_loopback_up()
    root = rootfs.build(plan.tree)
    _set_names(spec)
    # Through a procfs of the new namespaces, and before the tree's read-only /proc/sys is all that is left.
    _set_kernel_parameters(spec)
    rootfs.enter(root)
    # From here on, every path is the container's.
    program.run(process, plan.stdio, monitor, plan.terms, wanted, console=True, init=spec.init)


def _join_namespaces(spec: Spec) -> None:
    """Open all before joining any: a path is meant as the host sees it."""
    wanted = [namespace for namespace in spec.namespaces if namespace.path and namespace.kind in _JOIN_ORDER]
    opened = []
    for namespace in wanted:
        with errors.step(f"linux.namespaces: open the {namespace.kind} namespace"):
            opened.append((namespace, os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)))
    for namespace, fd in opened:
        with errors.step(f"linux.namespaces: join the {namespace.kind} namespace {namespace.path}"):
            syscalls.setns(fd, namespace.flag)
        os.close(fd)


def _make_namespaces(spec: Spec) -> None:
    """All at once, but for the pid namespace, which the monitor had to make before the fork."""
    flags = 0
    for namespace in spec.namespaces:
        if not namespace.path and namespace.kind != "pid":
            flags |= namespace.flag
    with errors.step("make namespaces"):
        syscalls.unshare(flags)


def _bring_loopback_up() -> None:
    with errors.step("bring up lo"):
        bring_up("lo")


def bring_up(interface: str) -> None:
    """Set a link of the current network namespace up (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        request = struct.pack("16sH14x", interface.encode(), 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", interface.encode(), flags | _IFF_UP))


def _set_names(spec: Spec) -> None:
    with errors.step("hostname"):
        if spec.hostname:
            syscalls.sethostname(spec.hostname)
        if spec.domainname:
            syscalls.setdomainname(spec.domainname)


def _set_kernel_parameters(spec: Spec) -> None:
    if not spec.sysctl:
        return
    # A procfs that is mounted nowhere: nothing that the image or another container does can redirect these writes.
    with errors.step("linux.sysctl: open a proc file system"):
        context = syscalls.fsopen("proc")
        syscalls.fsconfig_create(context)
        proc = syscalls.fsmount(context, 0)
        os.close(context)
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS
    for key, value in spec.sysctl.items():
        with errors.step(f"linux.sysctl[{key}]"):
            path = key if "/" in key else key.replace(".", "/")
            fd = syscalls.openat2(proc, f"sys/{path}", os.O_WRONLY, resolve=resolve)
            os.write(fd, value.encode())
            os.close(fd)
    os.close(proc)
