"""What a taint does to the tasks that do not tolerate it, and how it is written on a command line."""

from protos import schema
from protos.orch.v1 import objects_pb2 as pb


def effect_of(taint: pb.Taint) -> pb.TaintEffect.ValueType:
    """What it does; one that says nothing keeps new tasks away."""
    return taint.effect or pb.TAINT_EFFECT_NO_SCHEDULE


def effect_word(taint: pb.Taint) -> str:
    """`no-schedule`."""
    return schema.enum_word(pb.TaintEffect.DESCRIPTOR, effect_of(taint))


def words(taint: pb.Taint) -> str:
    """`gpu=a100:no-schedule`."""
    return f"{taint.key}{f'={taint.value}' if taint.value else ''}:{effect_word(taint)}"
