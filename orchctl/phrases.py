"""How single facts of an object are put into words: one word or one short sentence each. Pure."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, cast

from google.protobuf.message import Message

from orchctl import amounts
from protos import absence, crashes, families, losses, schema, states, units
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

MAX_ADDRESSES = 3


def yes_no(*, yes: bool) -> str:
    return "yes" if yes else "no"


def _word(message: Message, field: str, default: int = 0) -> str:
    """The manifests' word for an enum field; `default` stands for a value that was left out."""
    enum = cast("EnumDescriptor | None", message.DESCRIPTOR.fields_by_name[field].enum_type)
    assert enum is not None, f"{field} is not an enum"
    return schema.enum_word(enum, getattr(message, field) or default)


def mode(service: pb.Service) -> str:
    return _word(service.spec, "mode", pb.SERVICE_MODE_REPLICATED)


def asked(service: pb.Service) -> int:
    """How many replicas the service's owner asks for now."""
    if service.meta.deleted_at or service.spec.stopped:
        return 0
    if service.spec.mode == pb.SERVICE_MODE_GLOBAL:
        return service.status.replicas
    return service.spec.replicas if service.spec.HasField("replicas") else 1


def replicas(service: pb.Service) -> str:
    """`2/3`: ready of asked."""
    return f"{service.status.ready}/{asked(service)}"


def is_observed(service: pb.Service) -> bool:
    """Whether the status tells of the present spec."""
    return service.status.observed_generation == service.meta.generation


def is_settled(service: pb.Service) -> bool:
    """Whether everything that is asked for is there."""
    return is_observed(service) and service.status.settled and not service.meta.deleted_at


def service_status(service: pb.Service) -> str:
    if service.meta.deleted_at:
        return "deleting"
    if is_settled(service):
        return "stopped" if service.spec.stopped else "ready"
    return service.status.message or ("in progress" if is_observed(service) else "waiting for the leader")


def ports(listed: Iterable[pb.Port]) -> str:
    """`8080→80/tcp 53/udp`: published→target."""
    return " ".join(_port(port) for port in listed)


def ready_of_all(tasks: Collection[pb.EndpointTask]) -> str:
    """`2/3`."""
    return f"{sum(task.ready for task in tasks)}/{len(tasks)}"


def ready_addresses(tasks: Iterable[pb.EndpointTask]) -> str:
    """Where new connections go: the first few."""
    addresses = [address for task in tasks if task.ready for address in families.every(task)]
    more = f" and {len(addresses) - MAX_ADDRESSES} more" if len(addresses) > MAX_ADDRESSES else ""
    return ", ".join(addresses[:MAX_ADDRESSES]) + more


def allow_rule(rule: pb.AllowRule) -> str:
    """`api to http, 443`."""
    return f"{getattr(rule, 'from')} to {', '.join(rule.ports) or 'all ports'}"


def source(allowed: pb.EndpointSource) -> str:
    """`default/api to 80/tcp`."""
    return f"{allowed.service} to {ports(allowed.ports) or 'all ports'}"


def _port(port: pb.Port) -> str:
    outside = f"{port.published}→" if port.published else ""
    return f"{outside}{port.target}/{_word(port, 'protocol', pb.PROTOCOL_TCP)}"


def task_state(task: pb.Task) -> str:
    """`RUNNING`; `STOPPING` while it is told to stop and still lives."""
    if task.desired_state >= pb.DESIRED_STATE_SHUTDOWN and not states.is_terminal(task.status.state):
        return "STOPPING"
    if crashes.is_looping(task):
        return "CRASH LOOP"
    return state_word(task.status.state)


def state_word(state: states.State) -> str:
    """`RUNNING`; the number of a state that this version does not know."""
    try:
        return states.word(state)
    except ValueError:
        return str(state)


def desired(task: pb.Task) -> str:
    return _word(task, "desired_state").upper()


def exit_code(task: pb.Task) -> str:
    if not task.status.HasField("exit_code"):
        return ""
    return f"{task.status.exit_code} (out of memory)" if task.status.oom_killed else str(task.status.exit_code)


def refusal(reason: pb.Refusal) -> str:
    """`2 nodes: not enough memory: needs 4Gi, at most 1Gi is free (n1, n2)`."""
    nodes = "1 node" if reason.nodes == 1 else f"{reason.nodes} nodes"
    examples = f" ({', '.join(reason.examples)}{', …' if len(reason.examples) < reason.nodes else ''})"
    return f"{nodes}: {reason.detail or reason.filter}{examples if reason.examples else ''}"


def task_message(task: pb.Task) -> str:
    """The sentence that tells most: why no node takes it, else what was reported."""
    status = task.status
    if status.state <= pb.TASK_STATE_PENDING and status.refusals:
        return "no node takes it: " + "; ".join(refusal(reason) for reason in status.refusals)
    if status.message:
        return status.message
    return status.reason


def node_state(node: pb.Node) -> str:
    """`READY`; of one that is lost also what becomes of its tasks: `DOWN (tasks held)`, `DOWN (given up)`; RESTARTING
    when its agent has gone in order and is expected back.
    """
    if absence.is_expected(node):
        return "RESTARTING"
    word = _word(node.status, "state").upper()
    if losses.is_final(node):
        return f"{word} (given up)"
    return f"{word} (tasks held)" if node.status.held else word


def node_state_now(node: pb.Node, now_ms: int) -> str:
    """`READY`; of one whose agent is being restarted also since when and for how long:
    `RESTARTING (its agent went in order 4s ago, expected within 30s)`.
    """
    if not absence.is_expected(node):
        return node_state(node)
    went = amounts.age(now_ms - node.status.since)
    within = units.format_duration(node.status.expected_by - node.status.since)
    return f"{node_state(node)} (its agent went in order {went} ago, expected within {within})"


def availability(node: pb.Node) -> str:
    """`active`; of a node that is drained also how far: `drain (2 left)`, `drain (empty)`."""
    word = _word(node.spec, "availability", pb.AVAILABILITY_ACTIVE)
    if node.spec.availability != pb.AVAILABILITY_DRAIN or not node.status.HasField("drain"):
        return word
    return f"{word} ({node.status.drain.left} left)" if node.status.drain.left else f"{word} (empty)"


def event_type(event: pb.Event) -> str:
    return _word(event.status, "type", pb.EVENT_TYPE_NORMAL)


def event_object(about: pb.EventObject) -> str:
    """`task/web-1-k7x2m9q4`."""
    return f"{about.kind}/{about.name}"


def granted(things: Mapping[str, pb.GrantedResources]) -> str:
    """`gpu 0, 1`."""
    return "; ".join(f"{name} {', '.join(one.ids)}" for name, one in sorted(things.items()))


def labels(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(pairs.items()))


def timestamp(moment_ms: int, now_ms: int) -> str:
    """`2026-01-31T12:00:00.000Z (5m ago)`; nothing for a moment that has not come."""
    if not moment_ms:
        return ""
    return f"{units.format_timestamp(moment_ms)} ({amounts.age(now_ms - moment_ms)} ago)"
