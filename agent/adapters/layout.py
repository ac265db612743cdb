"""Where an agent keeps what on its disk.

STATE/node.json                 the node's id
STATE/assignment.pb             what the leader assigned last
STATE/servers.json              where the control planes are, as the cluster told last
STATE/last-address              the address that was given last to a task
STATE/tasks/ID/record.json      what must be remembered of a task
STATE/tasks/ID/{upper,work}     the container's writable layer
STATE/tasks/ID/files/           its own /etc/hostname, /etc/hosts and /etc/resolv.conf
STATE/tasks/ID/log              its output, `log.00000001` and so on what was rotated out
STATE/tasks/ID/netns            its network namespace, pinned
STATE/tasks/ID/userns           the user namespace that this one belongs to, pinned, unless it is the node's
STATE/tasks/ID/volumes/NAME     a folder that its containers share
STATE/names-at                  the address at which names are answered
STATE/kernel-parameters.json    what parameters of the kernel were before the agent changed them
STATE/tasks/ID/containers/NAME/ {upper,work}, files and log of a container that is not the main one
STATE/images/                   the image store
RUN/ID/, RUN/ID.NAME/           the runtime's own state, which means nothing after a reboot

RUN is STATE/run unless told otherwise. On a tmpfs, such as below /run, a container starts several milliseconds sooner.
"""

from dataclasses import dataclass
from pathlib import Path

from agent import early
from protos import containers

MONITORS = "@monitors"
"""The control group of the launcher and the monitors, beside those of the containers, none of which is called so."""
KEEPER = "@keeper"
"""That of the process by which a unit keeps its group for all of them: systemd's to end, and never the agent's."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one agent. A task's id is checked by the runtime's rules before it becomes a path."""

    state: Path
    run_folder: Path | None = None

    @property
    def node(self) -> Path:
        return self.state / "node.json"

    @property
    def assignment(self) -> Path:
        return self.state / "assignment.pb"

    @property
    def servers(self) -> Path:
        return self.state / "servers.json"

    @property
    def last_address(self) -> Path:
        return self.state / "last-address"

    @property
    def names(self) -> Path:
        return self.state / early.NOTE

    @property
    def kernel(self) -> Path:
        return self.state / "kernel-parameters.json"

    @property
    def lock(self) -> Path:
        """Held by the agent, and its pid."""
        return self.state / "lock"

    @property
    def own(self) -> tuple[Path, ...]:
        """All that an agent has on its disk."""
        files = (self.node, self.assignment, self.servers, self.last_address, self.names, self.kernel, self.lock)
        return (*files, self.tasks, self.images, self.run)

    @property
    def tasks(self) -> Path:
        return self.state / "tasks"

    @property
    def images(self) -> Path:
        return self.state / "images"

    @property
    def run(self) -> Path:
        return self.run_folder or self.state / "run"

    def task(self, task_id: str) -> Path:
        return Path(self._task(task_id))

    def container(self, container_id: str) -> Path:
        """The folder of what is one container's own."""
        task_id, name = containers.split(container_id)
        assert "/" not in name, name
        return self.task(task_id) / "containers" / name if name else self.task(task_id)

    def record(self, task_id: str) -> Path:
        # Asked for at every step of a task: two paths, one of them from the other, would cost more.
        return Path(f"{self._task(task_id)}/record.json")

    def log(self, container_id: str) -> Path:
        return self.container(container_id) / "log"

    def netns(self, task_id: str) -> Path:
        return self.task(task_id) / "netns"

    def userns(self, task_id: str) -> Path:
        return self.task(task_id) / "userns"

    def volumes(self, task_id: str) -> Path:
        return self.task(task_id) / "volumes"

    def _task(self, task_id: str) -> str:
        assert "/" not in task_id, task_id
        assert task_id not in {"", ".", ".."}, task_id
        return f"{self.state}/tasks/{task_id}"
