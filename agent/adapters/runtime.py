"""Containers, by the runtime of this project: one launcher that is started when needed, one connection a monitor.

Two rules: a container is known by its folder on disk and not by a connection, so nothing here has to survive; and
the launcher may be killed at any moment: the next request starts another.
"""

import asyncio
import contextlib
import json
import os
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from agent.adapters import trees
from agent.adapters.execution import MonitorExec
from agent.adapters.layout import Layout
from agent.adapters.wire import Connection
from agent.core import users
from agent.core.container import ContainerRequest
from agent.core.record import Exit
from agent.errors import NoSuchTask, Refused, StartFailed, Temporary
from agent.ports import ContainerState, Exec, Usage
from protos.orch.v1 import control_pb2 as cpb
from runtime import cgroups, client, errors, protocol, state

if TYPE_CHECKING:
    import subprocess

log = structlog.get_logger()

_NS_PER_MS = 1_000_000


@dataclass(slots=True)
class _Held:
    """A container that this agent has seen. `monitor` is None when it had ended before that."""

    monitor: Connection | None
    ended: "asyncio.Future[Exit]"


class Launched:
    """A Runtime over `runtime.launcher` and its monitors."""

    def __init__(self, layout: Layout, *, now_ms: Callable[[], int], group: str = "") -> None:
        """`group`: the control group of the launcher and the monitors; empty: the agent's own."""
        self._layout = layout
        self._group = group
        self._root = str(layout.run)
        self._groups = cgroups.current_layout()  # looked at once: the list of mounts grows with the tasks
        self._now_ms = now_ms
        self._launcher: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._held: dict[str, _Held] = {}

    async def close(self) -> None:
        """Let go of everything. The launcher ends, containers live on."""
        for held in self._held.values():
            if held.monitor is not None:
                held.monitor.close()
        self._held.clear()
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None
        await self._bury()

    # Containers

    async def start(self, request: ContainerRequest) -> ContainerState:
        container_id = request.container_id
        folder = self._layout.container(container_id)
        await _fresh_layer(folder, request.layers)
        root_id = _root_id(request.config)
        config = _with_files(request, folder / "files", root_id)
        try:
            await self._ask_launcher(
                "create",
                container=container_id,
                config=config,
                overlay={"lower": request.layers, "upper": str(folder / "upper"), "work": str(folder / "work")},
                log={
                    "path": str(self._layout.log(container_id)),
                    "max_bytes": request.log_max_size,
                    "max_files": request.log_max_files,
                },
                start=not request.until_s,
            )
            if request.until_s:
                await self._start_leased(container_id, request.until_s)
            return self._adopt(container_id, root_id)
        except errors.ContainerExists as error:
            # What an agent that was killed had begun to make, and no agent has seen whole.
            await self.delete(container_id)
            raise Temporary(f"{error.message}; what was there has been removed") from error
        except errors.InvalidSpec as error:
            raise Refused(f"the runtime does not take this container: {error.message}", reason="InvalidSpec") from error
        except errors.PeerGone as error:
            raise Temporary(f"the launcher was lost while the container was made: {error.message}") from error
        except errors.ContainerError as error:
            raise StartFailed(error.message, exit_code=error.exit_code) from error

    async def containers(self) -> Mapping[str, ContainerState]:
        """Connects to what runs, and removes what was never whole."""
        known = {entry.id for entry in client.list_containers(self._root) if entry.started_ns}
        for name in sorted(set(state.names(self._root)) - known):
            try:
                await self.delete(name)
            except Temporary as error:
                log.warning("a container that was never whole stays for now", container=name, error=error.message)
        return {
            container_id: self._adopt(container_id, self._known_root_id(container_id)) for container_id in sorted(known)
        }

    async def wait(self, container_id: str) -> Exit:
        if container_id not in self._held:
            raise NoSuchTask(f"task {container_id} has no container on this node")
        return await asyncio.shield(self._held[container_id].ended)

    def clock_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def extend(self, container_id: str, until_s: float) -> None:
        held = self._held.get(container_id)
        if held is None or held.monitor is None:
            return
        try:
            await held.monitor.call("lease", until_ns=int(until_s * 1e9))
        except errors.PeerGone:
            return  # it has ended, and needs no more time
        except errors.ContainerError as error:
            raise Temporary(f"{container_id} was not told that it may live on: {error.message}") from error

    async def signal(self, container_id: str, name: str) -> None:
        held = self._held.get(container_id)
        if held is not None and held.monitor is not None:
            with contextlib.suppress(errors.PeerGone):  # it has ended, which is what signals are for
                await held.monitor.call("kill", signal=signal_number(name))

    async def delete(self, container_id: str) -> None:
        held = self._held.pop(container_id, None)
        if held is not None:
            if held.monitor is not None:
                held.monitor.close()
            held.ended.cancel()
        try:
            await asyncio.to_thread(client.delete, self._root, container_id, force=True, layout=self._groups)
        except (errors.ContainerError, OSError) as error:
            raise Temporary(f"the container was not removed: {error}", reason="CleanupFailed") from error

    async def execute(self, container_id: str, start: cpb.ExecStart) -> Exec:
        try:
            connection = client.adopt(self._root, container_id).socket
        except (errors.UnknownContainer, errors.PeerGone) as error:
            raise NoSuchTask(f"task {container_id} has no running container: {error.message}") from error
        return await MonitorExec.start(connection, start, environment=self._config(container_id)["process"]["env"])

    @contextlib.asynccontextmanager
    async def paused(self, container_id: str) -> AsyncIterator[None]:
        """It stands still during the block, and no longer than this agent lives. Raises NoSuchTask or Refused."""
        try:
            connection = client.adopt(self._root, container_id).socket
        except (errors.UnknownContainer, errors.PeerGone) as error:
            raise NoSuchTask(f"task {container_id} has no running container: {error.message}") from error
        monitor = Connection(connection, f"the monitor of {container_id}")
        try:
            await _pause(monitor, container_id)
            yield
        finally:
            monitor.close()

    async def usage(self, container_ids: Collection[str]) -> Mapping[str, Usage]:
        return await asyncio.to_thread(_usage, self._root, self._groups, container_ids)

    # Network namespaces, which the launcher makes because it is the one that may fork

    async def make_network_namespace(self, path: Path, *, owner: Path, root_id: int) -> None:
        """Make one that is pinned at `path`; with a root id, its users are pinned at `owner`. Raises Temporary."""
        mapping = [{"containerID": 0, "hostID": root_id, "size": users.SIZE}]
        users_of = {"path": str(owner), "uidMappings": mapping, "gidMappings": mapping}
        try:
            await self._ask_launcher("netns-create", path=str(path), owner=users_of if root_id else None)
        except errors.ContainerError as error:
            raise Temporary(error.message, reason="NetworkFailed") from error

    async def remove_network_namespace(self, path: Path, *, owner: Path) -> None:
        """Unpin both. Nothing happens when there is none. Raises Temporary."""
        try:
            await self._ask_launcher("netns-delete", path=str(path), owner=str(owner))
        except errors.ContainerError as error:
            raise Temporary(error.message, reason="NetworkFailed") from error

    # Inside

    async def _start_leased(self, container_id: str, until_s: float) -> None:
        """Start a container that was only created: its monitor has to know the end before there is anything to end."""
        connection = client.adopt(self._root, container_id).socket
        monitor = Connection(connection, f"the monitor of {container_id}")
        try:
            await monitor.call("lease", until_ns=int(until_s * 1e9))
            await monitor.call("start")
        finally:
            monitor.close()

    def _known_root_id(self, container_id: str) -> int:
        try:
            return _root_id(self._config(container_id))
        except FileNotFoundError:  # an agent was killed while it removed the container
            return 0

    def _config(self, container_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._layout.run / container_id / state.CONFIG_FILE).read_bytes())
        return found

    def _adopt(self, container_id: str, root_id: int) -> ContainerState:
        """Connect to a container's monitor, or learn how it ended."""
        known = state.load(self._root, container_id)
        started_at = known.started_ns // _NS_PER_MS
        ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        try:
            connection = client.adopt(self._root, container_id).socket
        except errors.PeerGone:
            ended.set_result(self._exit_of(container_id, started_at))
            self._held[container_id] = _Held(monitor=None, ended=ended)
            return ContainerState(pid=known.pid, started_at=started_at, exit=ended.result(), root_id=root_id)

        def finish() -> None:
            if not ended.done():
                ended.set_result(self._exit_of(container_id, self._now_ms()))

        def heard(event: dict[str, Any]) -> None:
            if event["event"] == "exit":
                finish()

        monitor = Connection(connection, f"the monitor of {container_id}", on_event=heard, on_end=finish)
        self._held[container_id] = _Held(monitor=monitor, ended=ended)
        return ContainerState(pid=known.pid, started_at=started_at, root_id=root_id)

    def _exit_of(self, container_id: str, unknown_at: int) -> Exit:
        """How it ended. When its monitor was killed nobody knows: the container was killed with it."""
        ended = state.load_exit(self._root, container_id)
        if ended is None:
            return Exit(code=128 + signal.SIGKILL, finished_at=unknown_at)
        return Exit(
            code=ended.exit_code,
            finished_at=ended.finished_at_ns // _NS_PER_MS,
            oom_killed=ended.oom_killed,
            memory_limit=ended.memory_limit_bytes or 0,
        )

    async def _ask_launcher(self, verb: str, **fields: Any) -> protocol.Message:
        if self._launcher is None or self._launcher.closed:
            await self._bury()
            try:
                self._process, connection = client.spawn(self._root, self._group)
            except OSError as error:
                raise Temporary(f"the launcher could not be started: {error.strerror}") from error
            self._launcher = Connection(connection, "the launcher")
            log.info("launcher started", pid=self._process.pid)
        return await self._launcher.call(verb, **fields)

    async def _bury(self) -> None:
        """Reap a launcher whose socket is closed: it has ended, or is about to."""
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(process.wait)


async def _pause(monitor: Connection, container_id: str) -> None:
    try:
        await monitor.call("pause")
    except errors.PeerGone as error:
        raise NoSuchTask(f"{container_id} has ended: {error.message}") from error
    except errors.ContainerError as error:
        text = f"{container_id} cannot be made to stand still: {error.message}; `--running` reads it as it runs"
        raise Refused(text, reason="CannotPause") from error


def _usage(root: str, groups: cgroups.Layout, container_ids: Iterable[str]) -> dict[str, Usage]:
    found = {}
    for container_id in container_ids:
        with contextlib.suppress(errors.UnknownContainer):  # it has just ended
            stats = cgroups.existing(groups, state.load(root, container_id).cgroups_path).stats()
            found[container_id] = Usage(cpu_ns=stats.cpu_usage_ns, memory_bytes=stats.memory_bytes, pids=stats.pids)
    return found


def _root_id(config: Mapping[str, Any]) -> int:
    """The node's id of a container's root."""
    mappings = config["linux"].get("uidMappings")
    return int(mappings[0]["hostID"]) if mappings else 0


def signal_number(name: str) -> int:
    """`SIGTERM`, `TERM`, `15` or `RTMIN+3` → the number. Raises Refused."""
    word = name.upper().removeprefix("SIG")
    base, plus, offset = word.partition("+")
    if word.isdecimal() and 0 < int(word) <= signal.SIGRTMAX:
        return int(word)
    number = getattr(signal, f"SIG{base}", None)
    if isinstance(number, signal.Signals) and (not plus or offset.isdecimal()):
        return int(number) + (int(offset) if plus else 0)
    raise Refused(f"there is no signal {name!r}; write one like SIGTERM or 15", reason="InvalidSignal")


def _with_files(request: ContainerRequest, folder: Path, root_id: int) -> Mapping[str, Any]:
    """The configuration with the container's own files, which are made anew."""
    if not request.files:
        return request.config
    mode = "ro" if request.config.get("root", {}).get("readonly") else "rw"
    mounts = list(request.config.get("mounts", ()))
    try:
        folder.mkdir(mode=0o711, exist_ok=True)
        for destination, text in request.files.items():
            path = folder / destination.rpartition("/")[2]
            _write_for(path, text, root_id)
            options = ["bind", "nosuid", "nodev", "noexec", mode]
            mounts.append({"destination": destination, "type": "bind", "source": str(path), "options": options})
    except OSError as error:
        raise Temporary(f"cannot write {folder}: {error.strerror}", reason="DiskFailed") from error
    return {**request.config, "mounts": mounts}


def _write_for(path: Path, text: str, root_id: int) -> None:
    """A file of the container's root. Never the one of an earlier container, which somebody may still hold open."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)
        os.fchown(fd, root_id, root_id)
        os.write(fd, text.encode())
    finally:
        os.close(fd)


async def _fresh_layer(folder: Path, layers: Sequence[str]) -> None:
    """A container starts on its image alone: what the one before it wrote is gone.

    An overlay shows the mode and owner of its highest root, so the new one has those of the one below it.
    """
    try:
        for name in ("upper", "work"):
            if (folder / name).exists():
                await asyncio.to_thread(trees.remove, folder / name)
            (folder / name).mkdir(mode=0o755, parents=True)
        for highest in layers[:1]:
            found = os.stat(highest)  # noqa: PTH116 - as quick as the others
            os.chown(folder / "upper", found.st_uid, found.st_gid)
            (folder / "upper").chmod(stat.S_IMODE(found.st_mode))
    except OSError as error:
        raise Temporary(f"cannot make {folder}: {error.strerror}", reason="DiskFailed") from error
