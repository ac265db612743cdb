"""What people do with a laboratory: up, down, a way in, and the machines' plugs."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local import control, errors, network, record
from deploy.local.processes import Process
from deploy.vmlab import accelerator, image, initial, keeper, lan, plan, qemu

_START_TIMEOUT_S: Final = 20.0
_DOWN_TIMEOUT_S: Final = 20.0
_BOOT_TIMEOUT_S: Final = 300.0
_PAUSE_S: Final = 0.5
_PROGRESS_S: Final = 10.0
_TAIL_LINES: Final = 15
_PROGRAMS: Final = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "qemu-storage-daemon": "qemu-system-x86",
    qemu.PROGRAM: "qemu-system-x86",
    "ssh": "openssh-client",
}
"""By name, with the Debian package that has it."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Laboratory:
    """One that is up."""

    places: plan.Places
    image: image.Image
    keeper: Process

    def on_lan(self, *command: str) -> list[str]:
        """The command, as it is executed on the LAN by the host, which is no machine of the cluster."""
        return [*lan.prefix(self.keeper), *command]

    def ssh(self, machine: plan.Machine, *command: str) -> list[str]:
        """The command that executes another one, of a shell's words, on a machine as root."""
        options = [
            "BatchMode=yes",
            "ConnectTimeout=20",
            "LogLevel=ERROR",
            "ServerAliveInterval=10",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.image.known_hosts}",
        ]
        ssh = ["ssh", "-F", "none", "-i", str(self.image.key), *(word for each in options for word in ("-o", each))]
        return self.on_lan(*ssh, f"root@{machine.address}", *command)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is on the LAN for the length of a block."""
        namespace = lan.of(self.keeper)
        try:
            with network.inside(namespace):
                yield
        finally:
            os.close(namespace)

    def pull_plug(self, machine: plan.Machine) -> None:
        """Power a machine off as a power cut does. Returns when it is off."""
        control.ask(self.places.run, control.Request(verb="kill", node=machine.name))

    def switch_on(self, machine: plan.Machine) -> None:
        """Power a machine on, which boots from what it has written."""
        control.ask(self.places.run, control.Request(verb="start", node=machine.name))

    def release(self) -> None:
        """From here on the laboratory outlives whoever made it, until somebody takes it down."""
        control.ask(self.places.run, control.Request(verb="release", node=""))


def up(places: plan.Places, *, disks: Sequence[Path], owner: int, say: Say) -> Laboratory:
    """Boot the machines, and wait until each lets one in. `disks` are shown to all of them, to be read only.

    It ends with the process `owner`, unless it is released. LocalError when it cannot be; then nothing runs.
    """
    _check()
    made = image.ensure(places, say)
    chosen = accelerator.choose(places.cache)
    say(
        "the machines have this one's processor (KVM)"
        if chosen == qemu.KVM
        else "the machines' processors are emulated"
    )
    places.run.mkdir(mode=0o700, exist_ok=True)
    lock = record.lock(places.run)
    if lock is None:
        raise errors.LocalError("a laboratory is up already", hint="make vmlab-down")
    try:
        _empty(places.run)
        _prepare(places, made, chosen, disks)
        _start(places, lock, owner)
    finally:
        os.close(lock)  # from here on it is the keeper's
    try:
        begun = existing(places)
        _await_ssh(begun, plan.MACHINES, say)
    except BaseException:
        down(places)
        raise
    return begun


def _check() -> None:
    if os.geteuid() != 0:
        raise errors.LocalError("the laboratory needs root: it makes file systems and links", hint="run it with sudo")
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise errors.LocalError(f"{program} is not on PATH", hint=f"apt-get install {package}")


def _empty(run: Path) -> None:
    for path in run.iterdir():
        path.unlink()


def _prepare(places: plan.Places, made: image.Image, chosen: Sequence[str], disks: Sequence[Path]) -> None:
    commands = {}
    for machine in plan.MACHINES:
        qemu.make_overlay(places.overlay(machine), made.disk)
        commands[machine.name] = qemu.of_laboratory(
            machine, places, chosen, kernel=initial.kernel(), initial=made.boot, disks=disks
        )
    keeper.save(places.run, keeper.Record(keeper=None, commands=commands))


def _start(places: plan.Places, lock: int, owner: int) -> None:
    owner_fd = os.pidfd_open(owner)
    ready, write_ready = os.pipe()
    command = [sys.executable, "-m", "deploy.vmlab.keeper", str(places.cache)]
    command += ["--lock-fd", str(lock), "--ready-fd", str(write_ready), "--owner-fd", str(owner_fd)]
    with places.log("keeper").open("ab") as log, os.fdopen(ready, "rb") as pipe:
        # It forks and goes its own way at once.
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock, write_ready, owner_fd),
            check=True,
        )
        for descriptor in (write_ready, owner_fd):
            os.close(descriptor)
        readable, _, _ = select.select([pipe], [], [], _START_TIMEOUT_S)
        if not readable or not pipe.read():
            raise errors.LocalError("the laboratory's keeper could not start", detail=tail(places.log("keeper")))


def existing(places: plan.Places) -> Laboratory:
    """The laboratory that is up. LocalError when there is none."""
    known = keeper.load(places.run)
    if known is None or known.keeper is None or not record.is_locked(places.run):
        raise errors.LocalError("no laboratory is up", hint="start one: make vmlab")
    (folder,) = places.cache.glob("image-*")
    return Laboratory(places=places, image=image.Image(folder=folder), keeper=known.keeper)


def down(places: plan.Places) -> bool:
    """End the laboratory and remove what its machines have written. Whether there was anything."""
    known = keeper.load(places.run)
    if known is None:
        return False
    if known.keeper is not None and record.is_locked(places.run):
        known.keeper.signal(signal.SIGTERM)
        if not known.keeper.wait(_DOWN_TIMEOUT_S):
            raise errors.LocalError(
                f"the keeper (pid {known.keeper.pid}) is still there after {_DOWN_TIMEOUT_S:.0f} s",
                hint=f"kill -9 {known.keeper.pid}, then again",
            )
    _empty(places.run)
    return True


def _await_ssh(laboratory: Laboratory, machines: Sequence[plan.Machine], say: Say) -> None:
    began = time.monotonic()
    for machine in machines:
        await_boot(laboratory, machine, say)
        say(f"{machine.name} lets one in, {time.monotonic() - began:.0f} s after power-on")


def await_boot(laboratory: Laboratory, machine: plan.Machine, say: Say) -> None:
    """Until a command can be executed on a machine. LocalError, with the end of its console, when it takes too long."""
    began = told = time.monotonic()
    while True:
        tried = subprocess.run(
            laboratory.ssh(machine, "true"), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if tried.returncode == 0:
            return
        now = time.monotonic()
        if now - began > _BOOT_TIMEOUT_S:
            said = f"{tail(laboratory.places.console(machine))}\n{tail(laboratory.places.log(machine.name))}"
            raise errors.LocalError(
                f"{machine.name} did not let anybody in within {_BOOT_TIMEOUT_S:.0f} s", detail=said
            )
        if now - told > _PROGRESS_S:
            say(f"{machine.name} is booting, {now - began:.0f} s")
            told = now
        time.sleep(_PAUSE_S)


def tail(path: Path) -> str:
    """The last lines of a file; nothing when there is none."""
    with contextlib.suppress(FileNotFoundError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
    return ""
