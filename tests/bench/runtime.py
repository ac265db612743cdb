"""The runtime beside crun, runc, Docker and podman: a container's whole life, a further process in it, many at once.

Everybody runs the same configuration: all namespaces, a cgroup, the default capabilities, masks, and Docker's seccomp
profile, which people run with. Ours also mounts the overlay of its root in the measured time; the peers' is ready. What
the launcher makes is in a user namespace in rows that say so, as the agent's containers are.
"""

import contextlib
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.local import sweep
from runtime import cgroups, client, defaults, protocol
from tests.bench import peers
from tests.bench.measure import Case
from tests.bench.peers import AT_ONCE, CGROUP, LONG, MANY, TRUE
from tests.support import rootfs, swarm

ROUNDS = 50
SLOW_ROUNDS = 10


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """Everything is on a tmpfs, so that no disk is measured."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orch-bench-", dir="/dev/shm")))
        image = rootfs.busybox(folder / "image")
        stack.callback(sweep.remove_cgroups, CGROUP)
        stack.enter_context(peers.without_hybrid_cgroups())
        ours = stack.enter_context(Ours.running(folder, image))
        others = {
            name: stack.enter_context(peers.Peer.ready(name, folder, image)) for name in peers.installed("crun", "runc")
        }
        command = stack.enter_context(peers.Peer.ready(peers.install(folder), folder, image))
        docker = stack.enter_context(swarm.running()) if swarm.available() else None
        yield [
            *_lives(ours, others, docker),
            *_commands(command, others, folder, image),
            Case(
                name="runtime.exec",
                unit="ms",
                ours=ours.execute,
                peer=others["crun"].execute if "crun" in others else None,
                peer_name="crun exec",
                rounds=ROUNDS,
                ratio_mark=1,
            ),
            Case(
                name=f"runtime.{MANY}_long_running_each",
                unit="ms",
                ours=ours.many,
                peer=others["crun"].many if "crun" in others else None,
                peer_name="crun run --detach",
                rounds=3,
                mark=1000 / 150,
            ),
            Case(
                name="runtime.monitor_memory",
                unit="MB",
                ours=ours.monitor_memory_mb,
                peer=None,
                peer_name="containerd's shim takes 2.4",
                rounds=1,
                mark=2,
            ),
        ]


def _lives(ours: "Ours", others: dict[str, peers.Peer], docker: swarm.Swarm | None) -> list[Case]:
    """Create, start, exit and delete; a missing peer has its row, too."""
    contenders: list[Contender] = [
        ("crun", others["crun"].life if "crun" in others else None, 1 / 3, ROUNDS),
        ("runc", others["runc"].life if "runc" in others else None, 1 / 5, ROUNDS),
        ("crun without a filter", others["crun"].life_without_filter if "crun" in others else None, 1, ROUNDS),
        ("docker's API", (lambda: peers.docker_life(docker)) if docker else None, 1 / 5, SLOW_ROUNDS),
    ]
    in_user_namespace = Case(
        name="runtime.create_start_exit_userns",
        unit="ms",
        ours=lambda: ours.life(mapped=True),
        peer=others["crun"].life if "crun" in others else None,
        peer_name="crun, without a user namespace",
        rounds=ROUNDS,
        ratio_mark=1 / 3,
    )
    return [in_user_namespace, *_beside("runtime.create_start_exit", ours.life, contenders)]


Contender = tuple[str, Callable[[], float] | None, float | None, int]
"""A peer's name, its measure if it is there, the mark of the ratio, and how many rounds."""


def _beside(name: str, ours: Callable[[], float], contenders: Sequence[Contender]) -> list[Case]:
    """One of ours beside each of several peers."""
    return [
        Case(name=name, unit="ms", ours=ours, peer=measured, peer_name=peer, rounds=rounds, ratio_mark=mark)
        for peer, measured, mark, rounds in contenders
    ]


def _commands(ours: peers.Peer, others: dict[str, peers.Peer], folder: Path, image: Path) -> list[Case]:
    """The same life by command lines, each of which starts anew."""
    podman = peers.Podman(folder, image) if peers.installed("podman") else None
    contenders: list[Contender] = [
        ("runc run", others["runc"].life if "runc" in others else None, 2, ROUNDS),
        ("crun run", others["crun"].life if "crun" in others else None, None, ROUNDS),
        ("podman run", podman.life if podman else None, None, SLOW_ROUNDS),
    ]
    return _beside("runtime.orchrun_run", ours.life, contenders)


class Ours:
    """The launcher and its monitors."""

    def __init__(self, launcher: client.Launcher, folder: Path, image: Path) -> None:
        self._launcher = launcher
        self._root = str(folder / "ours")
        self._folder = folder
        self._image = image
        self._groups = cgroups.current_layout()  # as the agent, which looks at it once
        self._numbers = itertools.count()
        self._memory_mb = 0.0
        self._held: client.Monitor | None = None

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, image: Path) -> "Iterator[Ours]":
        with client.Launcher.spawn(str(folder / "ours")) as launcher:
            ours = cls(launcher, folder, image)
            try:
                yield ours
            finally:
                for container in client.list_containers(ours._root):
                    client.delete(ours._root, container.id, force=True)

    def life(self, *, mapped: bool = False) -> float:
        """One container from its creation to its removal; what is asked for was written before, as for the peers."""
        request = self._request(f"c{next(self._numbers)}", TRUE)
        if mapped:
            defaults.give_user_namespace(request["config"], first_id=1 << 20)
        with peers.milliseconds() as spent:
            name = self._create(request)
            with contextlib.suppress(client.errors.PeerGone), client.adopt(self._root, name) as monitor:
                monitor.wait(10)
            client.delete(self._root, name, force=True, layout=self._groups)
        return spent[0]

    def execute(self) -> float:
        """One process in a running container."""
        if self._held is None:
            self._held = client.adopt(self._root, self._create(self._request("held", LONG)))
        with peers.milliseconds() as spent:
            number, _, _ = self._held.execute({"args": TRUE})
            assert self._held.wait_exec(number, 10) == 0
        return spent[0]

    def many(self) -> float:
        """Milliseconds for each of many containers that stay, some at a time."""
        names = [f"m{next(self._numbers)}" for _ in range(MANY)]
        requests = [self._request(name, LONG) for name in names]
        connection = self._launcher.socket
        with peers.milliseconds() as spent:
            for number, request in enumerate(requests):
                if number >= AT_ONCE:
                    self._await_reply()
                protocol.send(connection, {"id": 1_000_000 + number, "verb": "create", **request})
            for _ in range(AT_ONCE):
                self._await_reply()
        self._memory_mb = statistics.mean(
            _pss_mb(state.monitor_pid) for state in client.list_containers(self._root) if state.id in names
        )
        for name in names:
            client.delete(self._root, name, force=True, layout=self._groups)
        return spent[0] / MANY

    def monitor_memory_mb(self) -> float:
        """What one of many monitors takes, shared pages counted once."""
        return self._memory_mb

    def _await_reply(self) -> None:
        self._launcher.socket.settimeout(30)
        message = protocol.receive(self._launcher.socket)
        assert message is not None, "the launcher has ended"
        protocol.result(message.body)

    def _create(self, request: dict[str, Any]) -> str:
        made = self._launcher.create(request["container"], request["config"], overlay=request["overlay"])
        return str(made["id"])

    def _request(self, name: str, args: Sequence[str]) -> dict[str, Any]:
        folders = {kind: self._folder / "ours-layers" / name / kind for kind in ("upper", "work")}
        for path in folders.values():
            path.mkdir(parents=True)
        return {
            "container": name,
            "config": defaults.config(args, cgroups_path=f"{CGROUP}/{name}", hostname=name),
            "overlay": {"lower": [str(self._image)], **{kind: str(path) for kind, path in folders.items()}},
            "start": True,
        }


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
