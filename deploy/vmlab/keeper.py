"""The parent of the machines. It holds their network, starts them, and pulls their plugs when it is asked to.

A machine that goes off stays off until it is started again. The keeper ends when it is told to (SIGTERM), or with the
process that owns the laboratory, as long as nobody has released it from that; machines and network end with the keeper.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from deploy.local import control, processes, supervisor
from deploy.local.supervisor import Over
from deploy.vmlab import lan, plan
from runtime import syscalls

_FILE: Final = "keeper.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a laboratory that is up, or was: who keeps it, and how each machine is started, by name."""

    keeper: processes.Process | None
    commands: Mapping[str, Sequence[str]]


def save(folder: Path, record: Record) -> None:
    """In one step: a reader sees the old content or the new one."""
    new = folder / f".{_FILE}.new"
    new.write_text(json.dumps(asdict(record), indent=1))
    new.replace(folder / _FILE)


def load(folder: Path) -> Record | None:
    """What the folder holds. None when there is no record, or one of another version."""
    try:
        content = json.loads((folder / _FILE).read_text())
        known = content["keeper"]
        return Record(keeper=processes.Process(**known) if known else None, commands=content["commands"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


class Keeper:
    """One laboratory's. Its state: a switch a machine, the running machines, and the owner's pidfd."""

    def __init__(self, places: plan.Places, commands: Mapping[str, Sequence[str]]) -> None:
        self._places = places
        self._commands = commands
        self._switches = {name: supervisor.Switch() for name in commands}
        self._machines: dict[str, subprocess.Popen[bytes]] = {}
        self._owner: int | None = None

    async def run(self, *, owner: int | None, ready: int) -> None:
        """Until the laboratory is to go down. `ready` is written to when it can be asked for something."""
        self._owner = owner
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_told_to_stop())
                group.create_task(self._owner_ended())
                for name, switch in self._switches.items():
                    switch.on.set()
                    group.create_task(self._run_machine(name))
                group.create_task(control.serve(self._places.run, self._answer, listening=lambda: _tell(ready)))
        except* Over as over:
            _say(f"going down: {over.exceptions[0]}")
        finally:
            for machine in self._machines.values():
                machine.kill()
            for machine in self._machines.values():
                machine.wait()

    async def _run_machine(self, name: str) -> None:
        switch = self._switches[name]
        while True:
            await switch.on.wait()
            await self._run_once(name)
            switch.on.clear()
            switch.off.set()

    async def _run_once(self, name: str) -> None:
        command = [*_bound_to(os.getpid()), *self._commands[name]]
        with self._places.log(name).open("ab") as log:
            machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: ASYNC220 - returns at once
        self._machines[name] = machine
        async with supervisor.ending(machine.pid) as ended:
            await ended.wait()
        _say(f"{name} went off with {machine.wait()}")
        del self._machines[name]

    async def _owner_ended(self) -> None:
        ended = asyncio.Event()
        if self._owner is not None:
            asyncio.get_running_loop().add_reader(self._owner, ended.set)
        await ended.wait()
        raise Over("its owner has ended")

    def _release(self) -> None:
        if self._owner is not None:
            asyncio.get_running_loop().remove_reader(self._owner)
            self._owner = None

    async def _answer(self, request: control.Request) -> control.Answer:
        if request.verb == "release":
            self._release()
            return control.Answer()
        if request.node not in self._switches:
            return control.Answer(error=f"no machine is called {request.node}: there are {', '.join(self._switches)}")
        switch, machine = self._switches[request.node], self._machines.get(request.node)
        match request.verb:
            case "start" if switch.on.is_set():
                return control.Answer(error=f"{request.node} is on")
            case "start":
                switch.off.clear()
                switch.on.set()
            case "kill":
                if machine is not None:
                    machine.kill()
                    await switch.off.wait()
            case _:
                return control.Answer(error=f"unknown request: {request.verb}")
        return control.Answer()


def _bound_to(parent: int) -> list[str]:
    """What a command has to begin with to die with this parent.

    setpriv(1) asks for that, and becomes a shell, which becomes the command. It looks whether the parent is still there
    first: one that had died before nobody would tell of.
    """
    return ["setpriv", "--pdeathsig", "KILL", "sh", "-c", f'[ "$PPID" = {parent} ] && exec "$@"', "sh"]


def _tell(ready: int) -> None:
    os.write(ready, b"ready")
    os.close(ready)


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    raise Over("told to")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the log is on a disk that may be full
        print(f"{time.strftime('%FT%TZ', time.gmtime())} keeper: {text}", flush=True)


def main() -> None:
    """Keeps a laboratory, as a daemon; standard output is its log. `laboratory.up` starts it."""
    parser = argparse.ArgumentParser(prog="python -m deploy.vmlab.keeper", description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--lock-fd", required=True, type=int)
    parser.add_argument("--ready-fd", required=True, type=int)
    parser.add_argument("--owner-fd", type=int)
    options = parser.parse_args()
    if os.fork():
        return
    os.setsid()  # a Ctrl-C in the terminal is not for the laboratory
    places = plan.Places(cache=options.cache)
    known = load(places.run)
    assert known is not None, f"{places.run} holds no record"
    for descriptor in (options.lock_fd, options.ready_fd, *filter(None, [options.owner_fd])):
        os.set_inheritable(descriptor, False)
    syscalls.set_process_name("orch-vmlab")
    save(places.run, Record(keeper=processes.of(os.getpid()), commands=known.commands))
    lan.make()
    asyncio.run(Keeper(places, known.commands).run(owner=options.owner_fd, ready=options.ready_fd))


if __name__ == "__main__":
    main()
