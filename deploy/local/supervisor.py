"""The parent of everything in a local cluster. It keeps etcd and the control plane running, and switches machines on.

A machine that dies stays off, as one does whose plug was pulled, until it is switched on again. The supervisor ends
when it is told to (SIGTERM), or when the process that owns the cluster ends, whichever way.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from deploy.local import control, network, plan, processes, record, sweeper
from runtime import syscalls

_FIRST_DELAY_S: Final = 0.2
_LAST_DELAY_S: Final = 5.0
_HEALTHY_S: Final = 10.0


class Over(Exception):  # noqa: N818 - not an error
    """The cluster is to go down."""


class Switch:
    """A machine's. Both events are never set at once; neither is while it changes over."""

    def __init__(self) -> None:
        self.on = asyncio.Event()
        self.off = asyncio.Event()


class Supervisor:
    """One cluster. Its state: the record, one switch a machine, and the running children."""

    def __init__(self, the_record: record.Record, *, lan: int) -> None:
        self._record = the_record
        self._plan = the_record.plan
        self._lan = lan
        self._switches = {name: Switch() for name in (*self._plan.instance_names, *self._plan.node_names)}
        self._places = network.make_places(the_record.plan, lan)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._unsaved = asyncio.Event()

    async def run(self, *, owner: int | None, ready: int) -> None:
        """Until the cluster is to go down. Everything has been started when `ready` is written to."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_told_to_stop())
                group.create_task(self._save_again())
                if owner is not None:
                    group.create_task(_owner_ended(owner))
                for name in self._plan.instance_names:
                    self._switches[name].on.set()
                    group.create_task(self._run_instance(name))
                for name in self._plan.node_names:
                    self._switches[name].on.set()
                    group.create_task(self._run_machine(name))
                group.create_task(control.serve(Path(self._plan.folder), self._answer))
                os.write(ready, b"ready")
                os.close(ready)
        except* Over as over:
            _say(f"going down: {over.exceptions[0]}")
        finally:
            self._kill_all()

    async def _run_instance(self, name: str) -> None:
        """A control plane and its member of etcd, which are started again when they end while their machine is on."""
        switch = self._switches[name]
        while True:
            await switch.on.wait()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(self._plan.etcd_of(name), plan.etcd_command(self._plan, name), name))
                group.create_task(self._keep(name, plan.control_plane_command(self._plan, name), name))
            switch.off.set()

    async def _keep(self, process: str, command: Sequence[str], instance: str) -> None:
        delay_s, switch = _FIRST_DELAY_S, self._switches[instance]
        while switch.on.is_set():
            began = time.monotonic()
            await self._run(process, command, self._places[instance])
            delay_s = _FIRST_DELAY_S if time.monotonic() - began > _HEALTHY_S else min(delay_s * 2, _LAST_DELAY_S)
            if switch.on.is_set():
                await asyncio.sleep(delay_s)

    async def _run_machine(self, name: str) -> None:
        switch = self._switches[name]
        while True:
            await switch.on.wait()
            await self._run(name, plan.machine_command(self._plan, name), self._lan)
            switch.on.clear()
            switch.off.set()

    async def _run(self, name: str, command: Sequence[str], place: int) -> None:
        """Start it in a network namespace, and wait for its end."""
        # Programs that are not ours are told by setpriv(1) to die with their parent; it then becomes them.
        command = ["setpriv", "--pdeathsig", "KILL", *command]
        with self._plan.log(name).open("ab") as log, network.inside(place):
            child = subprocess.Popen(  # noqa: ASYNC220 - this thread has to be in the LAN meanwhile
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._plan.folder
            )
        self._children[name] = child
        self._note(name, processes.of(child.pid))
        async with ending(child.pid) as ended:
            await ended.wait()
        _say(f"{name} ended with {child.wait()}")
        del self._children[name]
        self._note(name, None)

    def _note(self, name: str, process: processes.Process | None) -> None:
        known = {**self._record.processes, name: process}
        self._record = dataclasses.replace(self._record, processes=known)
        self._save()

    def _save(self) -> None:
        try:
            record.save(self._record)
        except OSError as error:  # a full disk must not take the machines down
            _say(f"what runs is not written down: {error.strerror}")
            self._unsaved.set()

    async def _save_again(self) -> None:
        """What the disk did not take is written as soon as it does."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            await asyncio.sleep(_LAST_DELAY_S)
            self._save()

    async def _answer(self, request: control.Request) -> control.Answer:
        if request.node not in self._switches:
            return control.Answer(error=f"no machine is called {request.node}: there are {', '.join(self._switches)}")
        switch = self._switches[request.node]
        children = [self._children[name] for name in self._processes(request.node) if name in self._children]
        match request.verb:
            case "start" if switch.on.is_set():
                return control.Answer(error=f"{request.node} is running")
            case "start":
                switch.off.clear()
                switch.on.set()
            case "kill":
                if not children:
                    return control.Answer(error=f"{request.node} is off")
                switch.on.clear()
                for child in children:
                    _pull_plug(child)
                await switch.off.wait()
            case _:
                return control.Answer(error=f"unknown request: {request.verb}")
        return control.Answer()

    def _processes(self, machine: str) -> Sequence[str]:
        """What runs on a machine, as this process's children are called."""
        return (self._plan.etcd_of(machine), machine) if machine in self._plan.instance_names else (machine,)

    def _kill_all(self) -> None:
        for child in self._children.values():
            _pull_plug(child)
        for child in self._children.values():
            child.wait()


def _pull_plug(child: subprocess.Popen[bytes]) -> None:
    """Kill it. Of a machine, kill process 1: its parent ends when the whole PID namespace has, and not before."""
    for pid in [pid for pid in processes.children(child.pid) if processes.is_first(pid)] or [child.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def ending(pid: int) -> AsyncIterator[asyncio.Event]:
    """An event that is set when that process has ended."""
    event, descriptor = asyncio.Event(), os.pidfd_open(pid)
    asyncio.get_running_loop().add_reader(descriptor, event.set)
    try:
        yield event
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    raise Over("told to")


async def _owner_ended(pidfd: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    await ended.wait()
    raise Over("its owner has ended")


def _start_sweeper(folder: Path, held: Sequence[int]) -> tuple[subprocess.Popen[bytes], int]:
    """The sweeper, and the end of the pipe that holds it back."""
    held_back, hold = os.pipe()
    command = [sys.executable, "-m", "deploy.local.sweeper", str(folder)]
    child = subprocess.Popen(command, stdin=held_back, start_new_session=True, pass_fds=held)
    os.close(held_back)
    return child, hold


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the log is on the disk that may be full
        print(f"{time.strftime('%FT%TZ', time.gmtime())} supervisor: {text}", flush=True)


def main() -> None:
    """Holds the cluster up, as a daemon; standard output is its log. `up` starts it."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.supervisor", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held-fds", required=True, type=lambda text: [int(one) for one in text.split(",")])
    parser.add_argument("--ready-fd", required=True, type=int)
    parser.add_argument("--owner-fd", type=int)
    options = parser.parse_args()
    if os.fork():
        return
    os.setsid()  # a Ctrl-C in the terminal is not for the cluster
    the_record = record.load(options.folder)
    assert the_record is not None, f"{options.folder} holds no record"
    for descriptor in (*options.held_fds, options.ready_fd, *filter(None, [options.owner_fd])):
        os.set_inheritable(descriptor, False)
    syscalls.set_process_name("orch-supervisor")
    watcher, hold = _start_sweeper(options.folder, options.held_fds)
    known = {"supervisor": processes.of(os.getpid()), "sweeper": processes.of(watcher.pid)}
    the_record = dataclasses.replace(the_record, processes=known)
    record.save(the_record)
    supervisor = Supervisor(the_record, lan=network.make_lan(the_record.plan))
    asyncio.run(supervisor.run(owner=options.owner_fd, ready=options.ready_fd))
    os.write(hold, sweeper.ENDED_IN_ORDER)


if __name__ == "__main__":
    main()
