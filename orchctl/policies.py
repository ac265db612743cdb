"""What a service asks for beside what it runs: how it is updated, what may be missing, where its tasks go. Pure.

The rule: in the words of the manifest, so that whoever reads it knows what to write to have it otherwise.
"""

from collections.abc import Collection, Iterator

from google.protobuf.message import Message

from protos import containers, schema, units
from protos.orch.v1 import objects_pb2 as pb


def update(policy: pb.UpdatePolicy) -> str:
    """`parallelism 1, order stop-first, onFailure rollback`. What decides how it goes is told, written or not."""
    other_way = policy.max_surge or policy.max_unavailable
    return _written(policy, {"on_failure"} if other_way else {"parallelism", "on_failure"})


def disruption(policy: pb.DisruptionPolicy) -> str:
    """`minAvailable 75%`."""
    return _written(policy) or "maxUnavailable 1"


def rebalance(policy: pb.RebalancePolicy) -> str:
    """`mode off`; nothing when nothing is written."""
    return _written(policy)


def placement(wishes: pb.Placement) -> Iterator[tuple[str, str]]:
    """Each kind of wish with its words; those without any have none."""
    yield "Constraints", "; ".join(wishes.constraints)
    yield "Preferences", "; ".join(f"{one.expression} (weight {one.weight or 1})" for one in wishes.preferences)
    yield "Spread", "; ".join(map(_spread, wishes.spread))
    yield "Near", "; ".join(map(_affinity, wishes.near))
    yield "Apart", "; ".join(map(_affinity, wishes.apart))
    yield "On one node", f"at most {wishes.max_per_node}" if wishes.max_per_node else ""
    yield "Tolerations", ", ".join(map(_toleration, wishes.tolerations))


def reserved(template: pb.TaskTemplate) -> str:
    """`500m cpu, 64Mi memory, 100 processes, 1Gi disk, 2 gpu`: what is kept for one task."""
    needs = containers.reserved(template)
    return ", ".join(
        (
            *amounts(needs.cpu, needs.memory, needs.pids),
            *([f"{units.format_bytes(needs.disk)} disk"] if needs.disk else []),
            *(f"{count} {name}" for name, count in sorted(needs.generic.items()) if count),
        )
    )


def amounts(cpu: int, memory: int, pids: int) -> Iterator[str]:
    """Those that are not 0."""
    if cpu:
        yield f"{units.format_cpu(cpu)} cpu"
    if memory:
        yield f"{units.format_bytes(memory)} memory"
    if pids:
        yield f"{pids} processes"


def _spread(one: pb.Spread) -> str:
    return f"{one.by}, maxSkew {one.max_skew}" if one.max_skew else one.by


def _affinity(one: pb.Affinity) -> str:
    by = f" by {one.by}" if one.by else ""
    return f"{one.service}{by}{f' (weight {one.weight})' if one.weight else ''}"


def _toleration(one: pb.Toleration) -> str:
    """`gpu=a100:no-schedule`; what it leaves out, it tolerates all of."""
    effect = f":{schema.enum_word(pb.TaintEffect.DESCRIPTOR, one.effect)}" if one.effect else ""
    return f"{one.key or 'every taint'}{f'={one.value}' if one.value else ''}{effect}"


def _written(message: Message, always: Collection[str] = ()) -> str:
    """The fields that say something, and with their defaults those of `always`."""
    return ", ".join(_fields(message, always))


def _fields(message: Message, always: Collection[str]) -> Iterator[str]:
    for name, field in schema.fields_by_yaml_name(message.DESCRIPTOR).items():
        rules = schema.rules(field)
        if not schema.has_value(message, field):
            said = rules.default if field.name in always else ""
        elif field.enum_type is not None:
            said = schema.enum_word(field.enum_type, getattr(message, field.name))
        else:
            value = getattr(message, field.name)
            said = value if isinstance(value, str) else units.format(rules.unit, value)
        if said:
            yield f"{name} {said}"
