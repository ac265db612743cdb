"""The two ways in which a container lives, as places where verbs are tried and processes are killed meanwhile.

    Supervised   through the library: a launcher, a monitor, `runtime.client`
    Unattended   through orchrun, one command a verb

One container, `a`, in each. A verb that is refused raises Refused; every other error is a failure of the runtime.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from runtime import cgroups, cgroupupdate, client, control, defaults, errors, removal, resources, state
from tests.support import lifecycle, processes
from tests.support.lifecycle import Status, Verb
from tests.support.waiting import until

NAME: Final = "a"
_PROGRAM: Final = "trap 'exit 0' TERM; while :; do sleep 0.02; done"
_FIRST_ID: Final = 1 << 20
_LIMIT: Final = 64 << 20


class Victim(StrEnum):
    """Who is killed. The first process is the container's, the command is the one that executes the verb."""

    LAUNCHER = "launcher"
    ZYGOTE = "zygote"
    MONITOR = "monitor"
    FIRST = "first process"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What differs between containers."""

    mapped: bool  # a user namespace
    init: bool  # a reaper at process 1


class Refused(Exception):  # noqa: N818 - it is no error here
    """The verb does not fit the status; the runtime said so."""


class World(ABC):
    """One container, and what there is beside it."""

    table: lifecycle.Table
    victims: tuple[Victim, ...]

    def __init__(self, root: str, marker: str, parent: str) -> None:
        self.root = root
        self.marker = marker  # in the command line of every process of this world
        self.parent = parent
        self.variant = Variant(mapped=False, init=False)
        self.story: list[str] = []  # for whoever reads of a failure
        self._command: subprocess.Popen[bytes] | None = None

    def choose(self, variant: Variant) -> None:
        """What the next containers are like."""
        self.variant = variant

    @abstractmethod
    def do(self, verb: Verb) -> None:
        """Do it; raises Refused."""

    @abstractmethod
    def find(self, victim: Victim) -> int | None:
        """The pid of whom to kill; None when there is nobody."""

    @abstractmethod
    def bystanders(self) -> set[int]:
        """Processes that belong to no container."""

    def status(self) -> Status:
        """As the files and the kernel tell it."""
        try:
            return Status(control.status(state.load(self.root, NAME)))
        except errors.UnknownContainer:
            return Status.HALF if Path(self.root, NAME).exists() else Status.GONE

    def configure(self, config: dict[str, Any]) -> dict[str, Any]:
        """The container's configuration from the default one."""
        config["process"]["args"] = ["sh", "-c", _PROGRAM, self.marker]
        config["process"]["terminal"] = False
        config["linux"]["cgroupsPath"] = f"{self.parent}/{NAME}"
        if self.variant.mapped:
            defaults.give_user_namespace(config, first_id=_FIRST_ID)
        if self.variant.init:
            config["annotations"] = {"orch.init": "true"}
        return config

    def leftovers(self) -> list[str]:
        """What is there of a container that should be gone."""
        mounts = {mount for _, mount in cgroups.current_layout().controllers} | {cgroups.current_layout().unified}
        groups = [f"{mount}{self.parent}/{NAME}" for mount in mounts if mount]
        found = [path for path in (*groups, f"{self.root}/{NAME}") if Path(path).exists()]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if self.marker in line]
        return found + [f"process {pid}: {what}" for pid, what in self._processes() if pid not in self.bystanders()]

    def _processes(self) -> Iterator[tuple[int, str]]:
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = (entry / "cmdline").read_text().replace("\0", " ") if entry.name.isdigit() else ""
                if self.marker in words and int(entry.name) != os.getpid():
                    yield int(entry.name), f"{(entry / 'comm').read_text().strip()}: {words}"

    def _command_line(self, line: list[str], said: Path) -> None:
        """Run a command to its end; its words go to a file, since the container keeps them open."""
        with said.open("wb") as output:
            self._command = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            code = self._command.wait(timeout=60)
        finally:
            self._command.kill()
            self._command.wait()
        words = said.read_text()
        assert "internal error" not in words, words
        assert "Traceback" not in words, words
        if code:
            raise Refused(f"exit code {code}: {words}")

    def evidence(self) -> list[str]:
        """What the container's folder says, and who is there: for whoever reads of a failure."""
        found = [path for name in ("state.json", "exit.json") if (path := Path(self.root, NAME, name)).exists()]
        return [*(f"{path.name}: {path.read_text()}" for path in found), *(f"{each}" for each in self._processes())]

    def was_essential(self, pid: int) -> bool:
        """Whether the container cannot live without this process."""
        try:
            known = state.load(self.root, NAME)
        except errors.UnknownContainer:
            return False
        return pid != 0 and pid in {known.pid, known.monitor_pid}

    def reset(self) -> None:
        """After a story that failed."""
        with contextlib.suppress(Refused):
            self.do(Verb.FORCE)

    def _known(self) -> state.State | None:
        try:
            known = state.load(self.root, NAME)
        except errors.UnknownContainer:
            return None
        return known if known.status != "stopped" else None


class Supervised(World):
    """A launcher, which whoever uses it starts again when it is gone."""

    table = lifecycle.SUPERVISED
    victims = (Victim.LAUNCHER, Victim.ZYGOTE, Victim.MONITOR, Victim.FIRST)

    def __init__(self, root: str, marker: str, parent: str, image: Path) -> None:
        super().__init__(root, marker, parent)
        self._image = image
        self._launcher: client.Launcher | None = None
        for kind in ("upper", "work"):
            Path(marker, kind).mkdir()

    def do(self, verb: Verb) -> None:
        try:
            self._do(verb)
        except (errors.WrongStatus, errors.UnknownContainer, errors.ContainerExists, errors.PeerGone) as error:
            raise Refused(str(error)) from error
        except errors.SetupFailed as error:
            # What a killed process stops. Nobody but the tests' own kills may be the cause: see `test_machine`.
            raise Refused(f"{type(error).__name__}: {error}") from error

    def _do(self, verb: Verb) -> None:
        match verb:
            case Verb.CREATE | Verb.RUN:
                self._make(start=verb is Verb.RUN)
            case Verb.STATE:
                control.status(state.load(self.root, NAME))
            case Verb.PAUSE:
                control.pause(state.load(self.root, NAME))
            case Verb.RESUME:
                control.resume(state.load(self.root, NAME))
            case Verb.UPDATE:
                self._update()
            case Verb.DELETE | Verb.FORCE:
                removal.delete(self.root, NAME, force=verb is Verb.FORCE)
            case _:
                with client.adopt(self.root, NAME) as monitor:
                    self._ask(monitor, verb)

    def _ask(self, monitor: client.Monitor, verb: Verb) -> None:
        match verb:
            case Verb.START:
                monitor.start()
            case Verb.TERM | Verb.KILL:
                monitor.kill(signal.SIGTERM if verb is Verb.TERM else signal.SIGKILL)
            case Verb.EXEC:
                number, _, _ = monitor.execute({"args": ["true"]})
                monitor.wait_exec(number, 20)
            case _:
                assert monitor.state().pid == state.load(self.root, NAME).pid

    def _make(self, *, start: bool) -> None:
        overlay = {"lower": [str(self._image)], "upper": f"{self.marker}/upper", "work": f"{self.marker}/work"}
        config = self.configure(defaults.config(["true"], cgroups_path="/", hostname=NAME))
        self._alive().create(NAME, config, overlay=overlay, start=start)

    def _update(self) -> None:
        known = state.load(self.root, NAME)
        if known.status == "stopped":
            raise errors.WrongStatus("is stopped")
        cgroupupdate.update(control.group(known), resources.Resources(memory_limit_bytes=_LIMIT))

    def _alive(self) -> client.Launcher:
        if self._launcher is None or self._launcher.process is None or self._launcher.process.poll() is not None:
            self.close()
            self._launcher = client.Launcher.spawn(self.root)
            self._launcher.ping()
        return self._launcher

    def find(self, victim: Victim) -> int | None:
        known = self._known()
        process = self._launcher.process if self._launcher is not None else None
        if victim is Victim.LAUNCHER:
            return process.pid if process is not None and process.poll() is None else None
        launcher = process.pid if process is not None else 0
        if victim is Victim.ZYGOTE:
            return next(iter(processes.zygotes(launcher)), None)
        monitors = [known.monitor_pid] if known is not None else processes.monitors(launcher)
        if victim is Victim.MONITOR:
            return next(iter(monitors), None)
        if known is not None:
            return known.pid
        return next((child for monitor in monitors for child in processes.children(monitor)), None)

    def bystanders(self) -> set[int]:
        """The launcher, its zygote, and the monitor that stands by."""
        if self._launcher is None or self._launcher.process is None:
            return set()
        launcher = self._launcher.process.pid
        # The zygote that it was forked by may have been killed, so it is known by its name.
        monitors = [pid for pid, what in self._processes() if what.startswith("orch-monitor")]
        return {launcher, *processes.children(launcher), *processes.living(monitors)[:1]}

    def close(self) -> None:
        """End the launcher."""
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None


class Unattended(World):
    """Nobody stays but the container."""

    table = lifecycle.UNATTENDED
    victims = (Victim.FIRST, Victim.COMMAND)

    def __init__(self, root: str, marker: str, parent: str, line: Callable[..., list[str]], image: Path) -> None:
        super().__init__(root, marker, parent)
        self._line = line
        self._image = image
        self._bundle = Path(marker, "bundle")
        self._bundle.mkdir()

    def choose(self, variant: Variant) -> None:
        super().choose(variant)
        config = self.configure(defaults.config(["true"], cgroups_path="/", hostname=NAME))
        config["root"] = {"path": str(self._image), "readonly": True}
        (self._bundle / "config.json").write_text(json.dumps(config))

    def do(self, verb: Verb) -> None:
        self._command_line(self._line(*self._arguments(verb)), Path(self.marker, "said"))

    def _arguments(self, verb: Verb) -> tuple[str, ...]:
        match verb:
            case Verb.CREATE:
                return "create", "--bundle", str(self._bundle), NAME
            case Verb.RUN:
                return "run", "--detach", "--bundle", str(self._bundle), NAME
            case Verb.TERM | Verb.KILL:
                return "kill", NAME, verb.value.removeprefix("kill ")
            case Verb.EXEC:
                return "exec", NAME, "true"
            case Verb.UPDATE:
                return "update", "--memory", str(_LIMIT), NAME
            case Verb.FORCE:
                return "delete", "--force", NAME
            case _:
                return verb.value, NAME

    def find(self, victim: Victim) -> int | None:
        running = self._command.pid if self._command is not None and self._command.returncode is None else None
        if victim is Victim.COMMAND:
            return running
        known = self._known()
        if known is not None:
            return known.pid
        return next(iter(processes.children(running)), None) if running is not None else None

    def bystanders(self) -> set[int]:
        return set()


@dataclass(slots=True, kw_only=True)
class Blow:
    """A kill that happened; pid is 0 when there was nobody to kill."""

    victim: Victim
    pid: int = 0

    def fall(self, world: World) -> None:
        """Kill whoever it is now."""
        with contextlib.suppress(ProcessLookupError):
            if (pid := world.find(self.victim)) is not None:
                os.kill(pid, signal.SIGKILL)
                self.pid = pid
                _await_end(world, pid)


def _await_end(world: World, pid: int) -> None:
    """A kill takes its time on a busy machine, and for ever on what is frozen."""
    pidfd = os.pidfd_open(pid)
    try:
        until(
            lambda: select.select([pidfd], [], [], 0)[0] or world.status() is Status.PAUSED,
            what=f"process {pid} ends",
            every_s=0.002,
        )
    finally:
        os.close(pidfd)


@contextlib.contextmanager
def struck(world: World, victim: Victim, delay_s: float) -> Iterator[Blow]:
    """Kill somebody while the block runs, so much later; at the end of the block it has happened."""
    blow = Blow(victim=victim)
    timer = threading.Timer(delay_s, blow.fall, (world,))
    timer.start()
    try:
        yield blow
    finally:
        timer.join()
