"""Run what every creation runs, as far as it has no effect.

The interpreter adapts its code in its first dozen runs, by writing into it. Done in the launcher, before it forks the
zygote, it is done once; done in the monitors it would cost each of them a copy of every page that it touches.
"""

import contextlib
import gc
import os
import socket
from typing import Final

from runtime import cgroups, defaults, descriptors, known, monitor, protocol, scripted, spec, state, supervisor
from runtime.script import machine, start, steps
from runtime.seccomp import cache

_FOLDER: Final = "@rehearsal-"


def prepare(root: str) -> None:
    """Have the default configuration known, and its filter ready, in memory that every fork shares."""
    with known.learning():
        wanted = spec.parse(defaults.config(["true"], cgroups_path="/rehearsal"))
    assert wanted.seccomp is not None, "the default configuration has a filter"
    cache.remember(wanted.seccomp, root)


def run(times: int) -> None:
    """Rehearse so many times."""
    config = defaults.config(["true"], cgroups_path="/rehearsal", hostname="rehearsal")
    defaults.give_user_namespace(config, first_id=1 << 16, path="/user")
    overlay = {"lower": ["/lower"], "upper": "/upper", "work": "/work"}
    request = {"id": 0, "container": "rehearsal", "config": config, "overlay": overlay, "start": True}
    packet = protocol.encode(request)
    for _ in range(times):
        body = protocol.decode(packet)
        monitor.parse(body, "/", ())
        wanted = spec.parse(body["config"])
        group = cgroups.Cgroup.plan(cgroups.current_layout(), wanted.cgroups_path, wanted.resources)
        cgroups.visible_folders(group)
        state.process_start(os.getpid())


def supervise(root: str, memory: machine.Memory, times: int) -> None:
    """Make and supervise containers that have nothing of one: a process that ends at once, in a folder of ours."""
    _clear(root)
    if not machine.SUPPORTED:
        return
    folder, kept = os.path.join(root, f"{_FOLDER}{os.getpid()}"), descriptors.now_open()
    # Without a disk or privileges the first real one says so.
    with contextlib.suppress(OSError, scripted.StepFailedError):
        os.mkdir(folder, 0o700)
        for _ in range(times):
            _supervise(folder, memory)
    state.remove_folder(folder)
    # A monitor leaves closing to its end.
    gc.collect()
    descriptors.close_others(kept)


def _clear(root: str) -> None:
    """Remove what launchers left that were killed meanwhile."""
    for name in os.listdir(root):
        if name.startswith(_FOLDER) and not os.path.exists(f"/proc/{name.removeprefix(_FOLDER)}"):
            state.remove_folder(os.path.join(root, name))


def _supervise(folder: str, memory: machine.Memory) -> None:
    script = steps.Script(memory.address)
    wake, _, told = script.given(), script.given(), script.given()
    script.call("poll", script.cell_address(wake), 2, -1)
    script.call("unshare", start.SHARED_FILES)
    script.call("write", told, "1", 1)
    log = (os.path.join(folder, "log"), 4096, 1)
    begun = scripted.Begun(folder=folder, own_pids=True, born=0, opened=(), stdio=0, log=log)
    made = scripted.Made(
        request={"container": "rehearsal", "bundle": ""},
        number=0,
        cgroup=((), "", "/rehearsal", ()),
        given=0,
        ready=0,
        state=scripted.known_before("rehearsal", "", "/rehearsal"),
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        scripted.begin(ours, begun, script.part(), [])
        made = made._replace(given=script.next_cell, ready=script.answer("umask", 0o022).number)
        script.call("exit_group", 0)
        fds = [theirs.fileno(), theirs.fileno(), os.open(folder, os.O_PATH)]
        scripted.go_on(ours, made, script.part(), fds)
        prepared = supervisor.prepare()
        container = scripted.Container(*protocol.receive_packet(theirs), theirs, memory)
        container.receive(theirs)
        supervisor.Supervisor(container.execute(prepared.start), prepared).run(lambda: None)
    os.unlink(os.path.join(folder, state.SOCKET_FILE))
