"""The container's first process, from its fork in the monitor to its program.

    monitor                                first process
    ───────                                ─────────────
    fork (its pid namespace is there)  ──►
                                           what needs the host's privileges
                                       ◄── {"born": pid}, with a user namespace: the fork ends, the first process is pid
                                           cgroup, namespaces, file tree, user …
                                       ◄── {"hooks": true}     (only when `Spec.awaits_creator`)
    network devices, hooks; {"hooked"} ──►
                                       ◄── {"created": true} [terminal's master]   or {"error": …}
    {"start": true}                    ──► (may have been sent long before)
                                       ◄── end of file: the program runs           or {"error": …}

One rule: the steps stand in one line, in the only order that works, and each says why it stands there.
"""

import fcntl
import functools
import os
import socket
import struct
from typing import Any, NoReturn, Self

from runtime import (
    cgroups,
    errors,
    hooks,
    labels,
    namespaces,
    pivot,
    program,
    protocol,
    rootfs,
    syscalls,
    timens,
    treatment,
    userns,
)
from runtime.cgroups import Cgroup
from runtime.seccomp import filter as filters
from runtime.spec import Spec, sysctl_namespace
from runtime.terms import SUPERVISED, Terms
from runtime.values import frozen

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


@frozen
class Plan:
    """Everything that the first process needs to know. `stdio` holds descriptors; -1 means /dev/null."""

    spec: Spec
    tree: rootfs.Tree
    cgroup: Cgroup
    stdio: tuple[int, int, int]
    order: filters.Order | None
    told: dict[str, Any]  # the state, as hooks get it
    terms: Terms = SUPERVISED


def run(plan: Plan, monitor: socket.socket) -> NoReturn:
    """Become the container's program, or tell the monitor why not."""
    program.attempt(lambda: _become_program(plan, monitor), monitor)


def _become_program(plan: Plan, monitor: socket.socket) -> NoReturn:
    spec, process = plan.spec, plan.spec.process
    # The kernel applies modes as asked for from here on.
    os.umask(0)
    labels.check(spec, process)
    # While the host's files can be seen, and on the host's account: compiling takes more memory than some limits allow.
    wanted = plan.order.fetch() if plan.order is not None else None
    # All of these need the host's /proc, files or privileges, which a user namespace takes away.
    program.adjust_oom_score(process)
    program.raise_hard_limits(process)
    treatment.ask_early(process, enters_user_namespace=spec.user_namespace is not None)
    doors = plan.cgroup.doors()
    _join_namespaces(spec)
    parameters = _KernelParameters.of(spec)
    # What is shared with others may belong to the host; what is made below belongs to the container.
    parameters.set(made=False)
    userns.give_pipes(plan.stdio, spec)
    owner = userns.Owner.of(spec)
    clocks = timens.make(spec, owner)
    if owner is not None:
        owner.make_files_as_root()
    sources = rootfs.prepare(plan.tree, owner)
    if owner is not None:
        userns.be_born(owner, spec, monitor)
    # A session of its own: signals to the monitor's group must not reach the container.
    os.setsid()
    plan.terms.bind_life()
    # Into the cgroup before the cgroup namespace is made, since that takes the group it is made in as its root; and
    # only here, where this is one process and not two, since some containers may have one only.
    with treatment.entering_group(process):
        cgroups.enter(doors)
    _make_namespaces(spec)
    timens.enter(clocks)
    if spec.makes("network"):
        _bring_loopback_up()
    root = rootfs.build(plan.tree, sources)
    # Hooks add to the tree, so what forbids that comes after them; the host's files can still be executed.
    _await_creation_hooks(spec, monitor)
    hooks.run(spec.hooks.create_container, _told(plan, "creating"))
    rootfs.restrict(spec, root)
    _set_names(spec)
    parameters.set(made=True)
    # After the hooks of this process, which are the host's programs.
    labels.apply(process)
    pivot.enter(root, spec.root_propagation[0])
    # From here on, every path is the container's.
    treatment.ask_late(spec, process)
    last = functools.partial(hooks.run, spec.hooks.start_container, _told(plan, "created"))
    program.run(process, plan.stdio, monitor, plan.terms, wanted, last, console=True, init=spec.init)


def _told(plan: Plan, status: str) -> dict[str, Any]:
    """The container's state, as this process sees it: its own pid in the container's namespace."""
    return {**plan.told, "status": status, "pid": os.getpid()}


def _await_creation_hooks(spec: Spec, monitor: socket.socket) -> None:
    """They are executed outside, and interfaces come from there: this process waits until the monitor has done it."""
    if spec.awaits_creator:
        protocol.send(monitor, {"hooks": True})
        if protocol.receive(monitor) is None:
            raise errors.PeerGone("hooks: the container is not wanted any more")


def _join_namespaces(spec: Spec) -> None:
    """Open all before joining any: a path is meant as the host sees it."""
    opened = []
    for namespace in namespaces.joined(spec):
        with errors.step(f"linux.namespaces: open the {namespace.kind} namespace"):
            opened.append((namespace, os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)))
    for namespace, fd in opened:
        with errors.step(f"linux.namespaces: join the {namespace.kind} namespace {namespace.path}"):
            syscalls.setns(fd, namespace.flag)
        os.close(fd)


def _make_namespaces(spec: Spec) -> None:
    """All at once, but for those that were made before: the pid, user and time namespaces."""
    flags = 0
    for namespace in spec.namespaces:
        if not namespace.path and namespace.kind not in {"pid", "user", "time"}:
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


def _no_such_parameter(key: str) -> errors.InvalidSpec:
    """Some of net.core are hidden by older kernels in a network that belongs to a user namespace (e.g. Linux 6.1)."""
    return errors.InvalidSpec(
        f"linux.sysctl[{key}]: this kernel does not have it, or not in a network that belongs to a user namespace; "
        f"remove it, or run without a user namespace"
    )


@frozen
class _KernelParameters:
    """`linux.sysctl`. They are those of the writer's namespaces, whichever procfs they are written through."""

    spec: Spec
    proc: int

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """With a procfs that is mounted nowhere: nothing that the image or another container does can redirect it."""
        if not spec.sysctl:
            return cls(spec=spec, proc=-1)
        with errors.step("linux.sysctl: open a proc file system"):
            return cls(spec=spec, proc=rootfs.detached_procfs())

    def set(self, *, made: bool) -> None:
        """Set those of the namespaces that the container joins, or, at last, those of the namespaces that it makes."""
        resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS
        for key, value in self.spec.sysctl.items():
            if self.spec.makes(sysctl_namespace(key) or "") != made:
                continue
            with errors.step(f"linux.sysctl[{key}]"):
                path = key if "/" in key else key.replace(".", "/")
                try:
                    fd = syscalls.openat2(self.proc, f"sys/{path}", os.O_WRONLY, resolve=resolve)
                except FileNotFoundError:
                    raise _no_such_parameter(key) from None
                os.write(fd, value.encode())
                os.close(fd)
        if made and self.proc >= 0:
            os.close(self.proc)
