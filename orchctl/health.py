"""How tasks are asked how they are, and how they end: lines for `describe`. Pure: objects in, words out."""

from google.protobuf.message import Message

from orchctl import amounts
from protos import probes, schema, units
from protos.orch.v1 import objects_pb2 as pb


def facts(template: pb.TaskTemplate) -> list[tuple[str, str]]:
    """Titles and what they say; nothing of what is not asked."""
    asked = template.container.probes
    questions = (("Startup", asked.startup), ("Liveness", asked.liveness), ("Readiness", asked.readiness))
    return [
        *((title, _probe(probe)) for title, probe in questions if _is_asked(probe)),
        ("Drains for", _drains(template) if template.container.ports else ""),
    ]


def _is_asked(probe: pb.Probe) -> bool:
    return probe.HasField("http") or probe.HasField("tcp") or probe.HasField("grpc") or probe.HasField("exec")


def _probe(probe: pb.Probe) -> str:
    """`HTTP GET /healthz on port 8080, every 10s within 1s, until 3 bad answers`."""
    bad = _number(probe, "failure_threshold")
    good = _number(probe, "success_threshold")
    return ", ".join(
        (
            probes.describe(probe),
            f"every {_duration(probe, 'interval')} within {_duration(probe, 'timeout')}",
            f"until {amounts.count(bad, 'bad answer')}",
            *([f"after them {amounts.count(good, 'good one')}"] if good > 1 else []),
            *([f"none counts before {units.format_duration(probe.start_period)}"] if probe.start_period else []),
        )
    )


def _drains(template: pb.TaskTemplate) -> str:
    return units.format_duration(_number(template, "drain_seconds") * 1000)


def _duration(message: Message, field: str) -> str:
    """What was written, or the schema's default."""
    written = _written(message, field)
    return units.format_duration(written) if written is not None else _default(message, field)


def _number(message: Message, field: str) -> int:
    written = _written(message, field)
    return written if written is not None else int(_default(message, field))


def _written(message: Message, field: str) -> int | None:
    """A 0 that was written can be told from nothing only where the schema says `optional`."""
    value: int = getattr(message, field)
    if message.DESCRIPTOR.fields_by_name[field].has_presence:
        return value if message.HasField(field) else None
    return value or None


def _default(message: Message, field: str) -> str:
    return schema.rules(message.DESCRIPTOR.fields_by_name[field]).default
