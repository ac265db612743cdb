"""A laboratory that is up: how it comes up, the ways into its machines, and their plugs."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local import control, errors, network
from deploy.local.processes import Process
from deploy.vmlab import accelerator, bundles, image, initial, keeping, lan, plan, qemu

_BOOT_TIMEOUT_S: Final = 600.0
_PAUSE_S: Final = 0.5
_PROGRESS_S: Final = 10.0
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


def up(places: plan.Places, *, owner: int, say: Say) -> Laboratory:
    """Boot the machines, with this checkout's bundles on their second disk, and wait until each lets one in.

    It ends with the process `owner`, unless it is released. LocalError when it cannot be; then nothing runs.
    """
    _check()
    keeping.check_none(places)  # before anything is replaced that it may use
    bundle = bundles.ensure(places, say)
    made = image.ensure(places, say)
    chosen = accelerator.choose(places.cache)
    say(
        "the machines have this one's processor (KVM)"
        if chosen == qemu.KVM
        else "the machines' processors are emulated"
    )
    process = keeping.begin(places, lambda: _prepare(places, made, chosen, bundle), owner=owner)
    begun = Laboratory(places=places, image=made, keeper=process)
    try:
        _await_ssh(begun, plan.MACHINES, say)
    except BaseException:
        keeping.end(places)
        raise
    return begun


def _check() -> None:
    if os.geteuid() != 0:
        raise errors.LocalError("the laboratory needs root: it makes file systems and links", hint="run it with sudo")
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise errors.LocalError(f"{program} is not on PATH", hint=f"apt-get install {package}")


def _prepare(places: plan.Places, made: image.Image, chosen: Sequence[str], bundle: Path) -> dict[str, Sequence[str]]:
    """The machines' disks, and how each is started."""
    for machine in plan.MACHINES:
        qemu.make_overlay(places.overlay(machine), made.disk)
    return {
        machine.name: qemu.of_laboratory(
            machine, places, chosen, kernel=initial.kernel(), initial=made.boot, disks=[bundle]
        )
        for machine in plan.MACHINES
    }


def existing(places: plan.Places) -> Laboratory:
    """The laboratory that is up. LocalError when there is none."""
    process = keeping.of(places)
    (folder,) = places.cache.glob("image-*")
    return Laboratory(places=places, image=image.Image(folder=folder), keeper=process)


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
        if not laboratory.keeper.alive:
            raise errors.LocalError(f"the laboratory was taken down while {machine.name} was booting")
        now = time.monotonic()
        if now - began > _BOOT_TIMEOUT_S:
            logs = (laboratory.places.console(machine), laboratory.places.log(machine.name))
            said = "\n".join(keeping.tail(log) for log in logs)
            raise errors.LocalError(
                f"{machine.name} did not let anybody in within {_BOOT_TIMEOUT_S:.0f} s", detail=said
            )
        if now - told > _PROGRESS_S:
            say(f"{machine.name} is booting, {now - began:.0f} s")
            told = now
        time.sleep(_PAUSE_S)
