"""Waiting until services stand as asked, or until objects have gone. The shell around `progress`.

Watches the objects, shows them on a screen, and survives a control plane that goes away and comes back: a watch that
breaks is opened again and begins with everything that is there, so nothing is missed.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from orchctl import client, conditions, errors, patience, screen, terminal
from orchctl.conditions import Condition
from orchctl.progress import Phase, Progress, Target, going, identity, progress
from protos import kinds, units
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

TICK_S = 0.25
"""The screen's clock moves this often while nothing happens."""
COALESCE_S = 0.01
"""Events that come together are looked at together."""
MOST_SELECTIONS = 32
"""A watch takes no more; where that is not enough, everything of the kinds is watched."""
RETRY_FIRST_S = 0.2
RETRY_MOST_S = 2.0


class View:
    """The watched objects, by kind and identity.

    Whole as soon as `synced`; a broken watch leaves the last whole view in place.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], kinds.StoredObject] = {}
        self.synced = False
        self.begun_s = math.inf  # on the loop's clock, while the first whole view of a watch has not come
        self.problem = ""
        self._incoming: dict[tuple[str, str], kinds.StoredObject] | None = None
        self._tasks: dict[tuple[str, str], list[pb.Task]] | None = None  # by namespace and service, until one changes
        self._changed = asyncio.Event()

    def begin(self) -> None:
        """A watch was opened: what comes until `synced` replaces everything."""
        self._incoming = {}
        self.begun_s = asyncio.get_running_loop().time()

    def broken(self, why: str) -> None:
        self.problem = why
        self._changed.set()

    def take(self, event: control.WatchResponse) -> None:
        into = self.objects if self._incoming is None else self._incoming
        self._tasks = None
        match event.WhichOneof("event"):
            case "changed":
                value = kinds.unwrap(event.changed)
                into[_key(value)] = value
            case "deleted":
                into.pop(_key(kinds.unwrap(event.deleted)), None)
            case "synced":
                self.objects, self._incoming = into, None
                self.synced, self.problem, self.begun_s = True, "", math.inf
            case None:
                pass  # a kind of event that this version does not know
        self._changed.set()

    async def change(self, server: str) -> None:
        """Returns when something has changed, or after a tick. Says when the server says nothing."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), TICK_S)
            await asyncio.sleep(COALESCE_S)
        self._changed.clear()
        if asyncio.get_running_loop().time() - self.begun_s >= patience.PATIENCE_S:
            self.begun_s = math.inf
            self.problem = patience.told(server, "Watch")

    def service(self, target: Target) -> pb.Service | None:
        value = self.objects.get((target.kind, target.id))
        return value if isinstance(value, pb.Service) else None

    def tasks(self, target: Target) -> list[pb.Task]:
        """The tasks of the target."""
        if self._tasks is None:
            self._tasks = {}
            for value in self.objects.values():
                if isinstance(value, pb.Task):
                    self._tasks.setdefault((value.meta.namespace, value.service), []).append(value)
        return self._tasks.get((target.namespace, target.name), [])


def _key(value: kinds.StoredObject) -> tuple[str, str]:
    return kinds.of(value).name, identity(value)


def until_settled(server: str, targets: Sequence[Target], timeout_ms: int) -> None:
    """Returns when every service stands as asked. NotDone when the time is over, or when that can never be."""

    def stand(view: View, target: Target) -> Progress:
        return progress(target, view.service(target), view.tasks(target), terminal.now_ms())

    _wait(server, targets, timeout_ms, stand, "not as asked")


def until_gone(server: str, targets: Sequence[Target], timeout_ms: int) -> None:
    """Returns when none of the objects is there any more. NotDone when the time is over."""

    def stand(view: View, target: Target) -> Progress:
        return going(is_there=(target.kind, target.id) in view.objects, tasks=view.tasks(target))

    _wait(server, targets, timeout_ms, stand, "still there")


def until(server: str, asked: Mapping[Target, Condition], timeout_ms: int, condition: str) -> None:
    """Returns when each target meets its condition. NotDone when the time is over, or when that can never be."""

    def stand(view: View, target: Target) -> Progress:
        value = view.objects.get((target.kind, target.id))
        now = conditions.Now(value=value, tasks=view.tasks(target), now_ms=terminal.now_ms())
        return asked[target](target, now)

    _wait(server, list(asked), timeout_ms, stand, f"not {condition}")


def _wait(
    server: str, targets: Sequence[Target], timeout_ms: int, stand: Callable[[View, Target], Progress], lacking: str
) -> None:
    if not targets:
        return
    shown = screen.choose()
    stands: dict[Target, Progress] = {}

    def look(view: View, elapsed_s: float) -> bool:
        if view.problem:
            shown.tell(view.problem)
            view.problem = ""
        if not view.synced:
            return False
        stands.update({target: stand(view, target) for target in targets})
        over = all(each.phase is not Phase.WAITING for each in stands.values())
        shown.show(stands, elapsed_s, last=over)
        return over

    in_time = _run(_watch(server, _selections(targets), look, timeout_ms / 1000))
    if not in_time and stands:
        shown.show(stands, timeout_ms / 1000, last=True)
    _judge(targets, stands, lacking if in_time else f"{lacking} after {units.format_duration(timeout_ms)}")


def _judge(targets: Sequence[Target], stands: dict[Target, Progress], lacking: str) -> None:
    """Raises NotDone with the reasons unless every target is done."""
    unknown = Progress(phase=Phase.WAITING, summary="the control plane told nothing about it")
    missing = {target: stands.get(target, unknown) for target in targets}
    missing = {target: stand for target, stand in missing.items() if stand.phase is not Phase.DONE}
    if not missing:
        return
    details = [
        line
        for target, stand in missing.items()
        for line in (f"{target.label}: {stand.summary}", *(f"  {trouble}" for trouble in stand.troubles))
    ]
    first, stand = next(iter(missing.items()))
    tells = f"`orchctl describe {first.kind} {first.name}` tells more"
    raise errors.NotDone(
        f"{', '.join(target.label for target in missing)}: {lacking}",
        details=details,
        hint=tells if stand.phase is Phase.IMPOSSIBLE else f"the cluster goes on trying; {tells}",
    )


def _selections(targets: Sequence[Target]) -> list[control.ListRequest]:
    """All objects of the targets' kinds and namespaces, and the tasks of the services among them.

    A watch takes so many selections and no more; of many targets, all that the cluster has of their kinds is looked at.
    """
    whole = dict.fromkeys((target.kind, target.namespace) for target in targets)
    services = [target for target in targets if target.kind == "service"]
    objects = [control.ListRequest(kind=kind, namespace=namespace) for kind, namespace in whole]
    tasks = [control.ListRequest(kind="task", namespace=each.namespace, service=each.name) for each in services]
    if len(objects) + len(tasks) <= MOST_SELECTIONS:
        return [*objects, *tasks]
    of_kinds = dict.fromkeys([*(target.kind for target in targets), *(["task"] if services else [])])
    return [control.ListRequest(kind=kind) for kind in of_kinds]


async def _watch(
    server: str, selections: Sequence[control.ListRequest], look: Callable[[View, float], bool], timeout_s: float
) -> bool:
    """Looks at each change of the view until `look` says yes: true; or until the time is over: false."""
    view, clock = View(), asyncio.get_running_loop().time
    start = clock()
    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
            follower = group.create_task(_follow(server, selections, view))
            while not look(view, clock() - start):
                await view.change(server)
            follower.cancel()
    except TimeoutError:
        return False
    except ExceptionGroup as several:
        raise several.exceptions[0] from several
    return True


async def _follow(server: str, selections: Sequence[control.ListRequest], view: View) -> None:
    """Keeps the view as the server shows it. Never returns; what the server refuses is raised."""
    retry_s = RETRY_FIRST_S
    while True:
        try:
            async with client.connect_async(server) as stub:
                view.begin()
                async for event in stub.Watch(control.WatchRequest(selections=selections)):
                    view.take(event)
                    retry_s = RETRY_FIRST_S
            view.broken(f"the control plane at {server} ended the watch; trying again")
        except errors.Unreachable as error:
            view.broken(f"{error.message}; trying again")
        await asyncio.sleep(retry_s)
        retry_s = min(retry_s * 2, RETRY_MOST_S)


def _run(waiting: Coroutine[Any, Any, bool]) -> bool:
    try:
        return asyncio.run(waiting)
    except KeyboardInterrupt:
        raise errors.Interrupted("no longer waiting", hint="the cluster goes on with what was asked") from None
