"""Plain containers, made around their first process: what is left to do inside is written down as a script.

The launcher makes them in its own memory, which is its own since it never forks, and so copies no page for them; a
monitor executes the script (`scripted`), its first part while the launcher makes what the second one needs. Two rules.
Nothing here waits. And what cannot be made, or fails, is left to the monitor, as the launcher was asked for it: the
monitor does it in its own way, or says what is wrong. What was made by then the launcher undoes before the first
process is begun, and the monitor afterwards, since it must end that process first.
"""

import contextlib
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
        self.memory = memory
        self.proc = rootfs.detached_procfs()
        self._layout = cgroups.current_layout()

    def make(self, message: protocol.Message, report: monitor.Reporter, monitors: socket.SocketType) -> bool:
        """Make the container of a `create` request with a monitor. False: it is not made, and nothing is left."""
        mask = os.umask(0)  # what is made has the modes that are asked for
        try:
            self._make(message, report, monitors)
        except _FAILURES:
            return False
        finally:
            os.umask(mask)
        return True

    def _make(self, message: protocol.Message, report: monitor.Reporter, monitors: socket.SocketType) -> None:
        request = monitor.parse(message.body, self._root, message.fds)
        wanted = spec.parse(request.config)
        path = wanted.cgroups_path or state.default_cgroups_path(request.container)
        wanted = values.replace(wanted, cgroups_path=path)
        reason = plain.why_not(wanted, started=request.start)
        if reason or (request.overlay is None and not wanted.root_path):
            raise outside.NotPlainError(reason)
        config = message.config or request.config
        with birth.place(
            request.root, request.container, config, wanted, bundle=request.bundle, layout=self._layout
        ) as place:
            _Making(self, message, request, report, wanted, place, monitors).make()
        os.close(place.lock)


class _Making:
    """One container, from its place on. `of` has what is the same for all."""

    def __init__(
        self,
        of: Maker,
        message: protocol.Message,
        request: monitor.Request,
        report: monitor.Reporter,
        wanted: spec.Spec,
        place: birth.Place,
        monitors: socket.SocketType,
    ) -> None:
        self._of = of
        self._request = request
        self._report = report
        self._spec = wanted
        self._place = place
        self._monitors = monitors
        self._script = steps.Script(of.memory.address)
        group, body = place.group, message.body
        self._made = scripted.Made(
            request={"bundle": "", **{name: value for name, value in body.items() if name != "config"}},
            number=int(body["id"]),
            cgroup=(group.layout.controllers, group.layout.unified, group.path, group.folders),
            given=0,
            ready=0,
            state=scripted.known_before(request.container, request.bundle, wanted.cgroups_path),
        )

    def make(self) -> None:
        """Raises what keeps it from being begun; whatever comes then is the monitor's to undo."""
        with contextlib.closing(outside.Given(script=self._script)) as given:
            found = outside.find(
                self._spec,
                self._place.group,
                outside.Streams.of(self._request.stdio, logged=self._request.log is not None),
                given,
                memory=self._of.memory,
                proc=self._of.proc,
                state_root=self._request.root,
            )
            writer = start.Writer(self._script, found.before)
            self._begin(writer, given)
            try:
                self._place.group.apply(self._spec.resources)
                with descriptors.nothing_left_after_failure():
                    self._go_on(writer, found)
            except _FAILURES:
                self._give_up()

    def _begin(self, writer: start.Writer, given: outside.Given) -> None:
        request, born = self._request, writer.begin()
        begun = scripted.Begun(
            folder=self._place.folder,
            own_pids=self._spec.makes("pid"),
            born=born.number if born is not None else 0,
            opened=tuple(cell.number for cell in self._script.opened),
            stdio=len(request.stdio),
            log=monitor.log_options(request.log),
        )
        scripted.begin(self._monitors, begun, self._script.part(), [*request.stdio, *given.fds])

    def _go_on(self, writer: start.Writer, found: outside.Found) -> None:
        first, given = self._script.next_cell, outside.Given(script=self._script)
        tree = rootfs.Tree(
            spec=self._spec,
            overlay=self._request.overlay,
            stage=self._place.folder,
            cgroup_folders=cgroups.visible_folders(self._place.group),
        )
        ready = writer.go_on(outside.prepare(tree, found, given))
        made = self._made._replace(given=first, ready=ready.number)
        scripted.go_on(self._monitors, made, self._script.part(), [*self._report, self._place.lock, *given.fds])
        given.close()

    def _give_up(self) -> None:
        try:
            scripted.give_up(self._monitors, self._made, [*self._report, self._place.lock])
        except errors.PeerGone:
            self._place.group.kill_all()  # what the monitor had begun dies with it
            raise
