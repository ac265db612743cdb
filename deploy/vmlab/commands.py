"""Commands on machines: on one, or on several at once, with a bound, and a line now and then about how far they are."""

import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NoReturn, TypeAlias, TypeVar

from deploy.local import errors
from deploy.vmlab import plan
from deploy.vmlab.keeping import tail
from deploy.vmlab.laboratory import Laboratory, Say

T = TypeVar("T")
Look: TypeAlias = Callable[[], T | None]

_PAUSE_S: Final = 0.3
_PROGRESS_S: Final = 15.0
SHORT_S: Final = 120.0
"""For what a machine whose processor is emulated does in a few seconds."""


def run(laboratory: Laboratory, machine: plan.Machine, command: str, *, timeout_s: float = SHORT_S) -> str:
    """What a shell's command prints on a machine. LocalError with its words when it fails, or takes too long."""
    begun = _begin(laboratory, machine, command)
    try:
        said, _ = begun.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        begun.kill()
        said, _ = begun.communicate()
        raise errors.LocalError(f"{machine.name}: longer than {timeout_s:.0f} s: {command}", detail=said) from None
    if begun.returncode != 0:
        raise errors.LocalError(f"{machine.name}: ended with {begun.returncode}: {command}", detail=said)
    return said


def _begin(laboratory: Laboratory, machine: plan.Machine, command: str) -> "subprocess.Popen[str]":
    words = laboratory.ssh(machine, command)
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def on_all(
    laboratory: Laboratory, commands: Mapping[plan.Machine, str], what: str, *, timeout_s: float, say: Say
) -> None:
    """Execute commands on several machines side by side; `what` they do is said while they last.

    LocalError with the words of the first that fails, or that takes too long; the others are ended.
    """
    began = told = time.monotonic()
    logs = {machine: laboratory.places.log(f"{machine.name}-command") for machine in commands}
    begun = {machine: _begin_into(laboratory, machine, command, logs[machine]) for machine, command in commands.items()}
    running = dict(begun)
    try:
        while running:
            for machine in [machine for machine, job in running.items() if job.poll() is not None]:
                _check(machine, running.pop(machine), what, logs[machine])
                say(f"{machine.name}: {what}: done after {time.monotonic() - began:.0f} s")
            now = time.monotonic()
            if running and now - began > timeout_s:
                _too_long(running, what, logs, timeout_s)
            if running and now - told > _PROGRESS_S:
                say(f"{what}: {', '.join(f'{one.name} ({_last(logs[one])})' for one in running)}")
                told = now
            time.sleep(_PAUSE_S)
    finally:
        for job in begun.values():
            job.kill()
            job.wait()


def _begin_into(laboratory: Laboratory, machine: plan.Machine, command: str, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        words = laboratory.ssh(machine, command)
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def _check(machine: plan.Machine, job: "subprocess.Popen[bytes]", what: str, log: Path) -> None:
    if job.returncode != 0:
        raise errors.LocalError(f"{machine.name}: {what}: ended with {job.returncode}", detail=tail(log))


def _too_long(
    running: Iterable[plan.Machine], what: str, logs: Mapping[plan.Machine, Path], timeout_s: float
) -> NoReturn:
    names = ", ".join(machine.name for machine in running)
    detail = "\n".join(tail(logs[machine]) for machine in running)
    raise errors.LocalError(f"{names}: {what}: not within {timeout_s:.0f} s", detail=detail)


def _last(log: Path) -> str:
    lines = tail(log).splitlines()
    return lines[-1][:60] if lines else "nothing yet"


def wait_for(what: str, look: Look[T], *, timeout_s: float, say: Say) -> T:
    """What `look` returns as soon as that is true. LocalError when it takes too long."""
    began = told = time.monotonic()
    while not (found := look()):
        now = time.monotonic()
        if now - began > timeout_s:
            raise errors.LocalError(f"not within {timeout_s:.0f} s: {what}")
        if now - told > _PROGRESS_S:
            say(f"waiting until {what}, {now - began:.0f} s")
            told = now
        time.sleep(_PAUSE_S)
    return found
