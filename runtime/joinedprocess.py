"""A further process in a running container (`exec`), from its fork in the monitor to its program.

The handshake is the first process's (see `firstprocess`). The fork is born into the container's pid namespace,
since the monitor's children are; the other namespaces are joined all at once through the first process's pidfd.
"""

import os
import socket
from typing import NoReturn

from runtime import errors, labels, program, syscalls, treatment, userns
from runtime.cgroups import Cgroup
from runtime.seccomp import filter as filters
from runtime.spec import Process, Spec
from runtime.terms import SUPERVISED, Terms
from runtime.values import frozen


@frozen
class Join:
    """What the process needs to know. `stdio` holds descriptors; -1 means /dev/null."""

    spec: Spec
    process: Process
    cgroup: Cgroup
    first_process: int  # pidfd
    stdio: tuple[int, int, int]
    order: filters.Order | None
    terms: Terms = SUPERVISED


def run(join: Join, monitor: socket.socket) -> NoReturn:
    """Become the program, or tell the monitor why not."""
    program.attempt(lambda: _become_program(join, monitor), monitor)


def _become_program(join: Join, monitor: socket.socket) -> NoReturn:
    os.setsid()
    join.terms.bind_life()
    # As in the first process.
    wanted = join.order.fetch() if join.order is not None else None
    treatment.run_on("initial", join.process.exec_affinity.initial)
    # Into the cgroup while its folders can still be seen.
    join.cgroup.enter()
    treatment.run_on("final", join.process.exec_affinity.final)
    # These need the host's privileges, which a user namespace takes away.
    program.adjust_oom_score(join.process)
    program.raise_hard_limits(join.process)
    treatment.ask_early(join.process, enters_user_namespace=join.spec.user_namespace is not None)
    labels.check(join.spec, join.process)
    labels.apply(join.process)
    userns.give_pipes(join.stdio, join.spec)
    flags = 0
    for namespace in join.spec.namespaces:
        if namespace.kind != "pid":
            flags |= namespace.flag
    with errors.step("join the container's namespaces"):
        # The mount namespace brings its root and working directory with it.
        try:
            syscalls.setns(join.first_process, flags)
        except ProcessLookupError:
            raise errors.WrongStatus("exec: the container has ended") from None
        os.chdir("/")
        if join.spec.user_namespace is not None:
            userns.become_root()
    treatment.ask_late(join.spec, join.process)
    program.run(join.process, join.stdio, monitor, join.terms, wanted, console=False)
