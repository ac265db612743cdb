"""The pages of `describe`: what an object is, how it stands and why. Pure: objects in, clean lines out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from orchctl import amounts, around, health, phrases, policies, safety, tables, terminal, words
from orchctl.tables import View
from protos import absence, families, kinds, schema, taints, units
from protos.orch.v1 import objects_pb2 as pb

WIDTH = 16
MAX_SHOWN = 100
"""Columns of the text of an annotation: some programs keep whole files there."""
_EVENT_TITLES = ("LAST SEEN", "TYPE", "REASON", "OBJECT", "COUNT", "BY", "MESSAGE")
_TASK_TITLES = ("NAME", "NODE", "STATE", "READY", "RESTARTS", "AGE", "MESSAGE")


def service(
    value: pb.Service,
    tasks: Sequence[pb.Task],
    revisions: Sequence[pb.Revision],
    view: View,
    last_words: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[str]:
    """A service with its tasks and revisions. `last_words`: the end of what tasks printed that crash, by their name."""
    status = value.status
    present = [task for task in tasks if task.revision_id == status.revision_id]
    newest = {revision.meta.id: revision for revision in revisions}.get(status.revision_id)
    stands = f"{status.ready} of {phrases.asked(value)} ready, {status.running} running, {status.updated} updated"
    return [
        *head(value, view),
        *facts(
            ("Mode", phrases.mode(value)),
            ("Replicas", stands),
            ("Status", phrases.service_status(value)),
            ("Message", status.message if status.message != phrases.service_status(value) else ""),
            ("Revision", f"{newest.number} ({newest.meta.id})" if newest else status.revision_id),
            ("Rollout", status.rollout.message),
            ("Address", families.shown(status)),
            ("Networks", ", ".join(value.spec.networks) or "default"),
            ("Allowed", ", ".join(map(phrases.allow_rule, value.spec.allow))),
            ("Waits for", around.dependencies(value.spec)),
            ("Gone after", units.format_duration(value.spec.ttl) if value.spec.HasField("ttl") else ""),
            ("Node loss", _node_loss(value.spec)),
            ("Update", policies.update(value.spec.update)),
            ("Disruption", policies.disruption(value.spec.disruption)),
            ("Rebalance", policies.rebalance(value.spec.rebalance)),
            ("Priority", str(value.spec.priority or "")),
            ("Users", safety.users_of_tasks(value.spec.template.container, present, view.node)),
        ),
        *_template(value.spec.template),
        *section("Around it", around.lines(value.spec.template)),
        *section("Revisions", _revisions(revisions, view)),
        *section("Tasks", _tasks(tasks, view)),
        *(line for name, lines in last_words.items() for line in section(f"{name} printed last", lines)),
    ]


def _node_loss(spec: pb.ServiceSpec) -> str:
    policy = spec.on_node_loss
    after = _duration(policy, "replace_after")
    if spec.mode == pb.SERVICE_MODE_GLOBAL:
        return f"its task is given up after {after}, and made again when the node is back"
    return f"killed there, and replaced after {after}: never two" if policy.fence else f"replaced after {after}"


def task(value: pb.Task, revision_: pb.Revision | None, view: View, last_words: Sequence[str] = ()) -> list[str]:
    """A task: where it stands, and why. `last_words`: the end of what it printed."""
    status = value.status
    return [
        *head(value, view),
        *facts(
            ("Service", f"{value.service}, slot {value.slot}" if value.slot else f"{value.service}, one on each node"),
            ("Revision", f"{revision_.number} ({value.revision_id})" if revision_ else value.revision_id),
            ("Node", view.node(value.node_id)),
            ("Granted", phrases.granted(value.granted)),
            ("State", _since(phrases.task_state(value), status.at, view)),
            ("Desired", phrases.desired(value)),
            ("Ready", phrases.yes_no(yes=status.ready)),
            ("Message", status.message),
            ("Reason", status.reason),
            ("Address", families.shown(status)),
            ("Users", safety.users(value, revision_.template.container if revision_ else None)),
            ("Restarts", str(status.restarts)),
            ("Exit code", phrases.exit_code(value)),
            ("Started", phrases.timestamp(status.started_at, view.now_ms)),
            ("Finished", phrases.timestamp(status.finished_at, view.now_ms)),
        ),
        *section("Why no node takes it", [phrases.refusal(reason) for reason in status.refusals]),
        *section("It printed last", last_words),
        *(_template(revision_.template) if revision_ else []),
        *(section("Around it", around.lines(revision_.template, status)) if revision_ else []),
    ]


def node(value: pb.Node, tasks: Sequence[pb.Task], view: View) -> list[str]:
    """A node with its tasks."""
    status, description = value.status, value.status.description
    return [
        *head(value, view),
        *facts(
            ("State", _node_state(value, view)),
            ("Message", status.message),
            ("Held", _held(value)),
            ("Availability", phrases.availability(value)),
            ("Drain", status.drain.message),
            ("Drain deadline", _at(value.spec.drain_deadline, view)),
            ("Address", description.address),
            ("Subnet", families.shown(status, "subnet")),
            ("Host name", description.hostname),
            ("System", ", ".join(filter(None, (description.os, description.kernel, description.platform)))),
            ("Control groups", description.cgroup_mode),
            ("Users", safety.users_of_node(description)),
            ("Agent", description.agent_version),
            ("Capacity", _capacity(description.capacity)),
            ("Taints", ", ".join(map(taints.words, value.spec.taints))),
        ),
        *section("Tasks", _tasks(tasks, view)),
    ]


def _held(node: pb.Node) -> str:
    """Why nothing is replaced, and what a person can do about it."""
    if not node.status.held:
        return ""
    return (
        "more than half of the nodes vanished together, as when the network fails: none of its tasks is replaced until "
        f"it returns, or `orchctl node lost {node.meta.name}` says that it does not"
    )


def revision(value: pb.Revision, view: View) -> list[str]:
    """A revision: one version of a template."""
    return [
        *head(value, view),
        *facts(("Service", value.service), ("Number", str(value.number))),
        *_template(value.template),
    ]


def image(value: pb.Image, view: View) -> list[str]:
    """An image of the cluster's own."""
    status = value.status
    return [
        *head(value, view),
        *facts(
            ("Digest", status.digest),
            ("Size", amounts.size(status.size)),
            ("Layers", str(status.layers)),
            ("Platform", status.platform),
        ),
    ]


def event(value: pb.Event, view: View) -> list[str]:
    """Something that has happened."""
    status = value.status
    return [
        *head(value, view),
        *facts(
            ("Object", phrases.event_object(status.about)),
            ("Type", phrases.event_type(value)),
            ("Reason", status.reason),
            ("Message", status.message),
            ("Count", str(status.count)),
            ("First seen", phrases.timestamp(status.first_seen, view.now_ms)),
            ("Last seen", phrases.timestamp(status.last_seen, view.now_ms)),
            ("By", status.actor),
        ),
    ]


def events(values: Sequence[pb.Event], view: View) -> list[str]:
    """A table of what has happened, the newest last."""
    return _table(words.kind("event"), values, _EVENT_TITLES, view)


def head(value: kinds.StoredObject, view: View) -> list[str]:
    """What every object has."""
    meta = value.meta
    return facts(
        ("Name", meta.name or meta.id),
        ("Namespace", meta.namespace if kinds.of(value).namespaced else ""),
        ("Id", meta.id if meta.id != meta.name else ""),
        ("Stack", meta.stack),
        ("Labels", phrases.labels(meta.labels)),
        ("Annotations", phrases.labels({key: terminal.cut(text, MAX_SHOWN) for key, text in meta.annotations.items()})),
        ("Created", phrases.timestamp(meta.created_at, view.now_ms)),
        ("Changed", phrases.timestamp(meta.updated_at, view.now_ms) if meta.updated_at != meta.created_at else ""),
        ("Deleted", phrases.timestamp(meta.deleted_at, view.now_ms)),
    )


def _template(template: pb.TaskTemplate) -> list[str]:
    """What is run, without what was left out."""
    container = template.container
    limits = container.resources.limits
    runs = facts(
        ("Image", container.image),
        ("Command", _words(container.command)),
        ("Arguments", _words(container.args)),
        ("User", container.user),
        ("Working folder", container.working_dir),
        ("Ports", phrases.ports(container.ports)),
        ("Limits", ", ".join(policies.amounts(limits.cpu, limits.memory, limits.pids))),
        ("Reserved", policies.reserved(template)),
        *health.facts(template),
        ("Stop within", units.format_duration(template.stop_grace_period) if template.stop_grace_period else ""),
    )
    variables = [f"{key}={value}" for key, value in sorted(container.env.items())]
    return [
        *section("Runs", [*runs, *(f"{'Environment:' if not n else '':{WIDTH}}{v}" for n, v in enumerate(variables))]),
        *section("Placement", facts(*policies.placement(template.placement))),
        *section("Volumes", around.mounts(template)),
        *section("Not as every container", safety.differences(container)),
    ]


def _tasks(tasks: Iterable[pb.Task], view: View) -> list[str]:
    return _table(words.kind("task"), sorted(tasks, key=tables.sort_key), _TASK_TITLES, view)


def _table(kind: kinds.Kind, values: Sequence[kinds.StoredObject], titles: Sequence[str], view: View) -> list[str]:
    shown = [column for column in tables.columns(kind, wide=False, with_namespace=False) if column.title in titles]
    rows = [tables.row(value, shown, view) for value in values]
    return tables.table([column.title for column in shown], rows) if rows else []


def _revisions(revisions: Iterable[pb.Revision], view: View) -> list[str]:
    rows = [
        [str(each.number), each.meta.id, each.template.container.image, view.age(each.meta.created_at)]
        for each in sorted(revisions, key=tables.sort_key)
    ]
    return tables.table(["NUMBER", "ID", "IMAGE", "AGE"], rows) if rows else []


def facts(*facts: tuple[str, str]) -> list[str]:
    """`Name:   value`, a line each; what has no value is left out."""
    return [f"{name + ':':{WIDTH}}{terminal.one_line(value)}" for name, value in facts if value]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """Lines under a title; nothing when there are none."""
    return ["", f"{title}:", *(f"  {terminal.clean(line)}" for line in lines)] if lines else []


def _node_state(value: pb.Node, view: View) -> str:
    """What is being restarted says by itself since when."""
    if absence.is_expected(value):
        return phrases.node_state_now(value, view.now_ms)
    return _since(phrases.node_state(value), value.status.since, view)


def _since(state: str, moment_ms: int, view: View) -> str:
    return f"{state} since {phrases.timestamp(moment_ms, view.now_ms)}" if moment_ms else state


def _at(moment_ms: int, view: View) -> str:
    """A moment that may be still to come."""
    if moment_ms <= view.now_ms:
        return phrases.timestamp(moment_ms, view.now_ms)
    return f"{units.format_timestamp(moment_ms)} (in {amounts.age(moment_ms - view.now_ms)})"


def _words(command: Iterable[str]) -> str:
    """As a list: the borders between words matter."""
    listed = list(command)
    return json.dumps(listed, ensure_ascii=False) if listed else ""


def _capacity(capacity: pb.NodeCapacity) -> str:
    tasks = f", {capacity.tasks} tasks" if capacity.tasks else ""
    pids = f", {capacity.pids} processes" if capacity.pids else ""
    disk = f", {amounts.size(capacity.disk)} disk" if capacity.disk else ""
    generic = "".join(f", {len(one.ids)} {name}" for name, one in sorted(capacity.generic.items()))
    return f"{units.format_cpu(capacity.cpu)} cpu, {amounts.size(capacity.memory)} memory{tasks}{pids}{disk}{generic}"


def _duration(message: pb.NodeLossPolicy, field: str) -> str:
    """What was written, or the schema's default."""
    value = getattr(message, field)
    return units.format_duration(value) if value else schema.rules(message.DESCRIPTOR.fields_by_name[field]).default
