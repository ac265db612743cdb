"""What must hold of containers around the main one, of tasks that are held, and of services that need each other."""

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Mapping

from agent.core.record import Record
from protos import containers, kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.violation import Violation
from tests.support import fake_agent

STALE_S = 15.0
"""How old what a leader decided from may be when it is written: it may have been frozen in between."""

SKEW_S = 10.0
"""Clocks of instances differ, and jump by as much."""

Reserved = tuple[int, int]
"""Processors and memory."""


class CrowdRules:
    """Told of every commit, and shown the machines."""

    def __init__(self) -> None:
        self._services: dict[str, pb.Service] = {}
        self._met_s: dict[tuple[str, str], float] = {}
        """When a service was last seen to fulfil a condition."""
        self._going_s: dict[str, float] = {}
        """When a service was first seen to be deleted."""

    def note(self, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
        """Something was written. Raises Violation."""
        match after or before:
            case pb.Service() as service:
                self._note_service(service, gone=after is None)
            case pb.Task() as task if after is not None:
                self._check_start(before, task)
                self._check_end(before, task)

    def _note_service(self, service: pb.Service, *, gone: bool) -> None:
        name, now_s = service.meta.name, asyncio.get_running_loop().time()
        # What it was until now counted until now.
        for one in filter(None, (self._services.get(name), None if gone else service)):
            status = one.status
            for word, count in (("ready", status.ready), ("started", status.running)):
                if status.replicas and count >= status.replicas:
                    self._met_s[name, word] = now_s
        if gone:
            self._services.pop(name, None)
            self._going_s.pop(name, None)
            return
        self._services[name] = service
        if service.meta.deleted_at:
            self._going_s.setdefault(name, now_s)

    def _check_start(self, before: kinds.StoredObject | None, task: pb.Task) -> None:
        """A task that may run from now on belongs to a service whose dependencies are there, or were a moment ago."""
        was_held = before is None or (isinstance(before, pb.Task) and before.desired_state == pb.DESIRED_STATE_READY)
        service = self._services.get(task.service)
        if not was_held or task.desired_state != pb.DESIRED_STATE_RUNNING or service is None:
            return
        now_s = asyncio.get_running_loop().time()
        if _wished_s(service) > now_s - STALE_S:
            return
        for name, condition in service.spec.depends_on.items():
            word = "ready" if condition == pb.DEPENDENCY_CONDITION_READY else "started"
            if not self._is_met(name, word, now_s):
                raise Violation("nobody starts too early", f"task {task.meta.id} may run, and {name} is not {word}")

    def _is_met(self, name: str, word: str, now_s: float) -> bool:
        other = self._services.get(name)
        if other is not None and other.status.replicas:
            count = other.status.ready if word == "ready" else other.status.running
            if count >= other.status.replicas:
                return True
        return now_s - self._met_s.get((name, word), -math.inf) <= STALE_S

    def _check_end(self, before: kinds.StoredObject | None, task: pb.Task) -> None:
        """Tasks of a service that goes stay until those that need it have gone."""
        service = self._services.get(task.service)
        removed = isinstance(before, pb.Task) and before.desired_state < task.desired_state == pb.DESIRED_STATE_REMOVE
        if not removed or service is None or not service.meta.deleted_at:
            return
        now_s = asyncio.get_running_loop().time()
        for name, since_s in self._going_s.items():
            if task.service in self._services[name].spec.depends_on and now_s - since_s > STALE_S:
                raise Violation("what is needed stays", f"task {task.meta.id} is to go, and {name} has not gone yet")

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


def _wished_s(service: pb.Service) -> float:
    """When its dependencies were wished for, at the latest: a spec that has just changed is not known to all."""
    return (service.meta.updated_at - fake_agent.BIRTH_MS) / 1000 + SKEW_S


def lacking(task: pb.Task, template: pb.TaskTemplate, running: frozenset[str]) -> list[str]:
    """The sidecars that a task should have beside it and has not."""
    ids = [containers.identity(task.meta.id, one.name) for one in template.sidecars]
    return [one for one in ids if one not in running]


def reserved(template: pb.TaskTemplate) -> Reserved:
    """What a task needs at most at a time, told from the schema's comments."""
    together: Counter[str] = Counter()
    for one in (template.container, *template.sidecars):
        together.update(cpu=one.resources.reservations.cpu, memory=one.resources.reservations.memory)
    before = [one.resources.reservations for one in template.init]
    return (
        max([together["cpu"], *(one.cpu for one in before)]),
        max([together["memory"], *(one.memory for one in before)]),
    )
