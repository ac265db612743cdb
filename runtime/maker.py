"""Plain containers, made up to their first process: what is left to do inside is written down as a script.

The launcher makes them in its own memory, which is its own since it never forks, and so copies no page for them; a
monitor executes the script (`scripted`). Two rules. Nothing here waits. And what cannot be made, or fails, is undone
and left to the monitor, as the launcher was asked for it: the monitor does it in its own way, or says what is wrong.
"""

import os
import socket

from runtime import (
    birth,
    cgroups,
    descriptors,
    errors,
    monitor,
    protocol,
    rootfs,
    scripted,
    spec,
    state,
    values,
)
from runtime.script import machine, outside, plain, start, steps

_FAILURES = (outside.NotPlainError, steps.TooLongError, errors.ContainerError, OSError)


class Maker:
    """Makes containers below a root. `memory` is where every monitor executes its script."""

    def __init__(self, root: str, memory: machine.Memory) -> None:
        self._root = root
        self._memory = memory
        self._proc = rootfs.detached_procfs()
        self._layout = cgroups.current_layout()

    def make(self, message: protocol.Message, report: int, monitors: socket.SocketType) -> bool:
        """Make the container of a `create` request, and hand it over. False: it is not made, and nothing is left."""
        mask = os.umask(0)  # what is made has the modes that are asked for
        try:
            with descriptors.nothing_left_after_failure():
                self._make(message, report, monitors)
        except _FAILURES:
            return False
        finally:
            os.umask(mask)
        return True

    def _make(self, message: protocol.Message, report: int, monitors: socket.SocketType) -> None:
        request = monitor.parse(message.body, self._root, message.fds, report)
        wanted = spec.parse(request.config)
        path = wanted.cgroups_path or state.default_cgroups_path(request.container)
        wanted = values.replace(wanted, cgroups_path=path)
        reason = plain.why_not(wanted, started=request.start)
        if reason or (request.overlay is None and not wanted.root_path):
            raise outside.NotPlainError(reason)
        with birth.place(
            request.root, request.container, request.config, wanted, bundle=request.bundle, layout=self._layout
        ) as place:
            folder, group = place.folder, place.group
            group.apply(wanted.resources)
            script = steps.Script(self._memory.address)
            given = outside.Given(script=script)
            marks = start.write(script, self._prepare(request, wanted, folder, group, given))
            listener = protocol.listen(os.path.join(folder, state.SOCKET_FILE))
            state.reserve(os.path.join(folder, state.EXIT_FILE))
            made = _described(message, request, wanted, folder, group, marks)
            with listener:
                fds = [report, *message.fds, place.lock, listener.fileno(), *given.fds]
                scripted.hand_over(monitors, made, script.finished(), fds)
            given.close()
        os.close(place.lock)

    def _prepare(
        self, request: monitor.Request, wanted: spec.Spec, folder: str, group: cgroups.Cgroup, given: outside.Given
    ) -> start.Inside:
        tree = rootfs.Tree(
            spec=wanted, overlay=request.overlay, stage=folder, cgroup_folders=cgroups.visible_folders(group)
        )
        streams = outside.Streams.of(request.stdio, logged=request.log is not None)
        return outside.prepare(tree, group, streams, given, memory=self._memory, proc=self._proc, state_root=self._root)


def _described(
    message: protocol.Message,
    request: monitor.Request,
    wanted: spec.Spec,
    folder: str,
    group: cgroups.Cgroup,
    marks: start.Marks,
) -> scripted.Made:
    return scripted.Made(
        request={"bundle": "", **{name: value for name, value in message.body.items() if name != "config"}},
        number=int(message.body["id"]),
        folder=folder,
        cgroup=(group.layout.controllers, group.layout.unified, group.path, group.folders),
        own_pids=wanted.makes("pid"),
        ready=marks.ready.number,
        born=marks.born.number if marks.born is not None else 0,
        stdio=len(request.stdio),
        log=monitor.log_options(request.log),
        state=scripted.known_before(request.container, request.bundle, wanted.cgroups_path),
    )
