"""Why a task is on its node, or on none: every filter and every part of the score, node by node, as it is seen now.

The rule: the same functions answer that place tasks. What is told of a placed task is what would be decided if it had
no node yet; what was seen when it was placed may have been something else.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from controlplane.core import ask as asking
from controlplane.core import choosing, fleet, refusals, scheduler, scoring, tasks
from controlplane.core import failures as remembering
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb


def explain(
    task: pb.Task,
    *,
    nodes: Iterable[pb.Node],
    placed: Collection[pb.Task],
    templates: Mapping[str, pb.TaskTemplate],
    rules: scheduler.Rules,
    now_ms: int,
    only: str = "",
) -> api.WhyResponse:
    """The answer for one task, or for one that is only thought of: then its id is empty. `only`: the id of one node.

    One more task of a global service is none: it is told which nodes are its own, as if it had no task yet.
    """
    service = rules.services.get((task.meta.namespace, task.service))
    everywhere = not task.meta.id and service is not None and service.spec.mode == pb.SERVICE_MODE_GLOBAL
    asked = [task] if not everywhere else [one for one in placed if _is_of(one, task) and tasks.is_live(one)]
    ids, homes = {one.meta.id for one in asked}, {one.node_id for one in asked}
    others = [other for other in placed if other.meta.id not in ids]
    ships = fleet.survey(nodes, others, templates, rules.everywhere, rules.stock)
    template = templates.get(task.revision_id, pb.TaskTemplate())
    ask = asking.read(task, template, rules.priority((task.meta.namespace, task.service)))
    failures = remembering.Failures(ships.row_of, others, now_ms).of(task.revision_id)
    ranking = choosing.Chooser(ships, ask, failures, rules.strategy).ranking()
    if task.target_node_id:
        ranking = [row for row in ranking if ships.nodes[row].meta.id == task.target_node_id]
    look = _Look(ships, ask, task, homes, scoring.Scoring(ships, ask, failures, rules.strategy))
    ranked = set(ranking)
    rows = [*ranking, *(row for row in range(len(ships.nodes)) if row not in ranked)]
    return api.WhyResponse(
        task=task.meta.id,
        service=task.service,
        summary=_of_everywhere(len(ranking), len(ships.nodes), len(homes))
        if everywhere
        else _summary(task, [ships.nodes[row] for row in ranking], ships.nodes),
        nodes=[look.at(row, every=bool(only)) for row in rows if not only or ships.nodes[row].meta.id == only],
    )


class _Look:
    """What is told of each node."""

    def __init__(
        self, ships: fleet.Fleet, ask: asking.Ask, task: pb.Task, homes: Collection[str], scores: scoring.Scoring
    ) -> None:
        self._ships, self._task, self._homes, self._scores = ships, task, homes, scores
        self._look = refusals.Look(ships, ask)

    def at(self, row: int, *, every: bool) -> api.NodeVerdict:
        node = self._ships.nodes[row]
        verdicts = list(self._verdicts(row))
        refusing = [one for one in verdicts if one.refusal]
        return api.NodeVerdict(
            node=node.meta.name,
            here=node.meta.id in self._homes,
            takes=not refusing,
            filters=verdicts if every else refusing[:1],
            score=() if refusing else self._scores.words(row),
        )

    def _verdicts(self, row: int) -> Iterable[api.FilterVerdict]:
        target = self._task.target_node_id
        if target:
            elsewhere = self._ships.nodes[row].meta.id != target
            yield api.FilterVerdict(filter="target", refusal="the task belongs to another node" if elsewhere else "")
        for name, refusal in self._look.at(row):
            yield api.FilterVerdict(filter=name, refusal=refusal)


def _is_of(other: pb.Task, task: pb.Task) -> bool:
    return (other.meta.namespace, other.service) == (task.meta.namespace, task.service)


def _of_everywhere(able: int, nodes: int, homes: int) -> str:
    return f"one task on each node that takes it: {able} of {nodes} nodes do now; it is on {homes}"


def _summary(task: pb.Task, ranking: Sequence[pb.Node], nodes: Sequence[pb.Node]) -> str:
    able = (
        f"{len(ranking)} of {len(nodes)} nodes take it now" if ranking else f"none of {len(nodes)} nodes takes it now"
    )
    best = f", the best is {ranking[0].meta.name}" if ranking else ""
    if not task.meta.id:
        return f"one more task: {able}{best}"
    home = next((node.meta.name for node in nodes if node.meta.id == task.node_id), task.node_id)
    if states.is_terminal(task.status.state):
        return f"it has ended{f'; it was on {home}' if home else ''}"
    if not task.node_id:
        told = f"; its status says: {task.status.message}" if task.status.message else ""
        return f"it has no node yet: {able}{best}{told}"
    if ranking and ranking[0].meta.id == task.node_id:
        return f"it is on {home}, which is the best now: {able}"
    if any(node.meta.id == task.node_id for node in ranking):
        return f"it is on {home}, and would go to {ranking[0].meta.name} now; a task never moves: {able}"
    return f"it is on {home}, which would not take it now; a task never moves: {able}{best}"
