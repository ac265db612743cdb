"""What must hold of containers around the main one, of tasks that are held, and of services that need each other."""

import asyncio
import math
from collections.abc import Iterable, Mapping

from agent.core.record import Record
from protos import containers, kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import particulars
from tests.sim.violation import Violation

STALE_S = 15.0
"""How old what a leader decided from may be when it is written: it may have been frozen in between."""


_WORDS: Mapping[int, str] = {
    pb.DEPENDENCY_CONDITION_READY: "ready",
    pb.DEPENDENCY_CONDITION_STARTED: "started",
    pb.DEPENDENCY_CONDITION_COMPLETED: "completed",
}


class CrowdRules:
    """Told of every commit, and shown the machines."""

    def __init__(self) -> None:
        self._services: dict[str, pb.Service] = {}
        self._tasks: dict[str, pb.Task] = {}
        self._met_s: dict[tuple[str, str], float] = {}
        """When a service was last seen to fulfil a condition."""
        self._wished_s: dict[str, float] = {}
        """When a service that was there already was changed."""
        self._going: dict[str, int] = {}
        """Services that are being deleted or are stopped, by the order in which that was asked for."""

    def note(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """Something was written. Raises Violation."""
        match after or before:
            case pb.Service() as service:
                self._note_service(service, gone=after is None)
            case pb.Task() as task:
                self._note_task(task, gone=after is None)
                if after is not None:
                    self._check_start(before, task)
                    self._check_end(before, task)

    def _note_service(self, service: pb.Service, *, gone: bool) -> None:
        name = service.meta.name
        known = self._services.get(name)
        # What it was until now counted until now.
        for one in filter(None, (known, None if gone else service)):
            self._note_met(one)
        if gone:
            for kept in (self._services, self._wished_s, self._going):
                kept.pop(name, None)
            return
        if known is not None and known.spec != service.spec:
            self._wished_s[name] = asyncio.get_running_loop().time()
        self._services[name] = service
        if service.meta.deleted_at or service.spec.stopped:
            self._going.setdefault(name, max(self._going.values(), default=0) + 1)
        else:
            self._going.pop(name, None)

    def _note_task(self, task: pb.Task, *, gone: bool) -> None:
        """What has come to an end may be all that was waited for, and one that begins again undoes it."""
        service = self._services.get(task.service)
        if service is not None:
            self._note_met(service)
        if gone:
            self._tasks.pop(task.meta.id, None)
        else:
            self._tasks[task.meta.id] = task
        if service is not None:
            self._note_met(service)

    def _note_met(self, service: pb.Service) -> None:
        for word in _WORDS.values():
            if self._holds(service, word):
                self._met_s[service.meta.name, word] = asyncio.get_running_loop().time()

    def _holds(self, service: pb.Service, word: str) -> bool:
        """Whether all that it wants are so."""
        status = service.status
        match word:
            case "ready":
                count = status.ready
            case "started":
                count = status.running
            case _:
                mine = [one for one in self._tasks.values() if one.service == service.meta.name]
                count = len(particulars.ended_well(mine))
        return bool(status.replicas) and count >= status.replicas

    def _has_just_changed(self, name: str) -> bool:
        """A leader may not know the spec that is there now."""
        return asyncio.get_running_loop().time() - self._wished_s.get(name, -math.inf) <= STALE_S

    def _check_start(self, before: kinds.StoredObject | None, task: pb.Task) -> None:
        """A task that may run from now on belongs to a service whose dependencies are there, or were a moment ago."""
        was_held = before is None or (isinstance(before, pb.Task) and before.desired_state == pb.DESIRED_STATE_READY)
        service = self._services.get(task.service)
        if not was_held or task.desired_state != pb.DESIRED_STATE_RUNNING or service is None:
            return
        if self._has_just_changed(task.service):
            return
        for name, condition in service.spec.depends_on.items():
            word = _WORDS[condition]
            if not self._is_met(name, word):
                raise Violation("nobody starts too early", f"task {task.meta.id} may run, and {name} is not {word}")

    def _is_met(self, name: str, word: str) -> bool:
        other = self._services.get(name)
        if other is not None and self._holds(other, word):
            return True
        return asyncio.get_running_loop().time() - self._met_s.get((name, word), -math.inf) <= STALE_S

    def _check_end(self, before: kinds.StoredObject | None, task: pb.Task) -> None:
        """Tasks of a service that goes stay until those that need it, and were asked to go before it, have gone.

        Whoever knows that it goes knows that those go, too. Tasks of a service that was made smaller go anyway, and
        those of a stopped one may be made fewer.
        """
        removed = isinstance(before, pb.Task) and before.desired_state < task.desired_state == pb.DESIRED_STATE_REMOVE
        number = self._going.get(task.service)
        if not removed or number is None or self._has_just_changed(task.service):
            return
        if task.slot > self._services[task.service].spec.replicas:
            return
        for name, earlier in self._going.items():
            if earlier < number and task.service in self._services[name].spec.depends_on and self._is_there(name):
                raise Violation("what is needed stays", f"task {task.meta.id} is to go, and {name} has not gone yet")

    def _is_there(self, name: str) -> bool:
        """Of a service that goes: one that is stopped stays, and its tasks do not."""
        mine = [one.status.state for one in self._tasks.values() if one.service == name]
        return bool(self._services[name].meta.deleted_at) or not all(map(states.is_terminal, mine))

    # Machines -------------------------------------------------------------------------------------------------------

    @staticmethod
    def check_machine(
        running: Iterable[str],
        records: Mapping[str, Record],
        tasks: Mapping[str, pb.Task],
        templates: Mapping[str, pb.TaskTemplate],
    ) -> None:
        """Called again and again with what runs on a node, and what its agent has noted."""
        for container_id in running:
            task_id, name = containers.split(container_id)
            task = tasks.get(task_id)
            template = templates.get(task.revision_id) if task is not None else None
            if task is None or template is None:
                continue
            if task.desired_state == pb.DESIRED_STATE_READY and not states.is_terminal(task.status.state):
                raise Violation("what is held does not run", f"container {container_id} runs, and its task is held")
            done = records[task_id].others if task_id in records else {}
            for one in template.init:
                if name == "" and (one.name not in done or done[one.name].ending != states.COMPLETE):
                    raise Violation("first things first", f"task {task_id} runs before {one.name} has ended well")


def lacking(task: pb.Task, template: pb.TaskTemplate, running: frozenset[str]) -> list[str]:
    """The sidecars that a task should have beside it and has not."""
    ids = [containers.identity(task.meta.id, one.name) for one in template.sidecars]
    return [one for one in ids if one not in running]


def reserved(template: pb.TaskTemplate, what: str) -> int:
    """How much of it a task needs at most at a time, told from the schema's comments."""

    def of(one: pb.Container) -> int:
        return int(getattr(one.resources.reservations, what))

    return max([sum(map(of, (template.container, *template.sidecars))), *map(of, template.init)])
