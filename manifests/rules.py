"""What an object has to be, beyond being readable: the rules of each field, and those across fields.

They hold for objects from anywhere (the API runs them too), so they give paths and know nothing of texts. Each rule is
a function from one message to problems; `_RULES` says which message it belongs to.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from manifests import (
    checks,
    containers,
    dependencies,
    diff,
    fencing,
    isolation,
    networking,
    placement,
    quoting,
    suggest,
    updating,
    volumes,
    words,
)
from manifests.paths import Path
from manifests.problems import Problem
from protos import kinds, schema
from protos.orch.v1 import objects_pb2 as pb

__all__ = ["Problem", "label_problems", "validate", "validate_change"]

MAX_LABEL = 128
RESERVED_ENV = "ORCH_"
"""What variables begin with that the agent gives to every task."""

_LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?", re.ASCII)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._/:@+-]*[A-Za-z0-9])?)?", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?/)?"
    rf"{_PATH_PART}(?:/{_PATH_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)
"""distribution/reference: registry, path, tag, digest."""


def validate(message: Message) -> tuple[Problem, ...]:
    """Everything that is wrong with an object (or with a part of one, such as a TaskTemplate)."""
    return tuple(_problems(message))


def validate_change(before: kinds.StoredObject, after: kinds.StoredObject) -> tuple[Problem, ...]:
    """What is wrong with turning one object into another: fields that cannot change."""
    return tuple(
        Problem(keys=path, message="cannot change after the object was made", hint="delete the object and make it anew")
        for path, field in diff.differing_fields(before, after)
        if schema.rules(field).immutable
    )


def _problems(message: Message) -> Iterator[Problem]:
    size = message.ByteSize()
    if size > checks.MAX_OBJECT_BYTES:
        yield Problem(keys=(), message=f"{size} bytes, at most {checks.MAX_OBJECT_BYTES} can be stored")
        return
    for part, path in checks.walk(message):
        yield from checks.problems(part, path)
        rule = _RULES.get(part.DESCRIPTOR.full_name)
        if rule is not None:
            yield from rule(part, path)


def _node(node: pb.Node, path: Path) -> Iterator[Problem]:
    if node.meta.namespace:
        yield Problem(
            keys=(*path, "meta", "namespace"), message="a Node belongs to the whole cluster", hint="remove it"
        )


def _meta(meta: pb.Meta, path: Path) -> Iterator[Problem]:
    yield from label_problems(meta.labels, (*path, "labels"))
    for key in sorted(meta.annotations):
        yield from _label_key(key, (*path, "annotations", key))


def label_problems(labels: Mapping[str, str], path: Path) -> Iterator[Problem]:
    """What is wrong with labels that stand at a path."""
    for key, value in sorted(labels.items()):
        yield from _label_key(key, (*path, key))
        if len(value) > MAX_LABEL or not _LABEL_VALUE.fullmatch(value):
            hint = f"write at most {MAX_LABEL} letters, digits and . _ / : @ + - ; annotations take any text"
            yield Problem(keys=(*path, key), message="not a label's value", hint=hint)


def _label_key(key: str, path: Path) -> Iterator[Problem]:
    if len(key) > MAX_LABEL or not _LABEL_KEY.fullmatch(key):
        hint = f"write at most {MAX_LABEL} letters, digits and . _ / - , beginning and ending with a letter or digit"
        yield Problem(keys=path, message="not a label's name", hint=hint, at_key=True)


def _service(spec: pb.ServiceSpec, path: Path) -> Iterator[Problem]:
    yield from networking.service_problems(spec, path)
    yield from dependencies.service_problems(spec, path)
    yield from fencing.problems(spec, path)
    yield from updating.order_problems(spec, path)


def _template(template: pb.TaskTemplate, path: Path) -> Iterator[Problem]:
    yield from label_problems(template.labels, (*path, "labels"))
    yield from containers.template_problems(template, path)
    yield from volumes.template_problems(template, path)


def _container(container: pb.Container, path: Path) -> Iterator[Problem]:
    if container.image and not _IMAGE.fullmatch(container.image):
        hint = "write it like hello, hello:1.2, registry:5000/team/hello or hello@sha256:…, in small letters"
        yield Problem(keys=(*path, "image"), message="not the name of an image", hint=hint)
    # Small letters are refused by the field's own pattern already.
    if container.stop_signal and not words.is_signal(container.stop_signal):
        hint = suggest.did_you_mean(container.stop_signal.upper(), words.signal_names()) or "write it like SIGTERM"
        yield Problem(
            keys=(*path, "stopSignal"), message=f"no signal {quoting.shown(container.stop_signal)}", hint=hint
        )
    yield from _env(container.env, (*path, "env"))
    yield from _ports(container.ports, (*path, "ports"))
    for name in sorted(container.ulimits.keys() - words.ULIMITS):
        hint = suggest.did_you_mean(name, words.ULIMITS) or f"known are {', '.join(sorted(words.ULIMITS))}"
        yield Problem(keys=(*path, "ulimits", name), message="not a limit of a process", hint=hint, at_key=True)
    yield from isolation.problems(container, path)
    yield from volumes.container_problems(container, path)
    yield from networking.probe_problems(container, path)
    yield from containers.container_problems(container, path)


def _env(env: Mapping[str, str], path: Path) -> Iterator[Problem]:
    for name, value in sorted(env.items()):
        if not _ENV_NAME.fullmatch(name):
            hint = "write letters, digits and _ . - , beginning with a letter or _"
            yield Problem(keys=(*path, name), message="not a variable's name", hint=hint, at_key=True)
        elif name.startswith(RESERVED_ENV):
            hint = "give it another name"
            yield Problem(
                keys=(*path, name), message=f"names with {RESERVED_ENV} are the system's", hint=hint, at_key=True
            )
        elif len(f"{name}={value}".encode()) > checks.MAX_TEXT_BYTES:
            message = f"name and value are longer than {checks.MAX_TEXT_BYTES} bytes together"
            yield Problem(keys=(*path, name), message=message)


def _ports(ports: Any, path: Path) -> Iterator[Problem]:
    """No name, no target and no published port twice."""
    seen: dict[tuple[object, ...], int] = {}
    for index, port in enumerate(ports):
        protocol = port.protocol or pb.PROTOCOL_TCP
        shown = schema.enum_word(pb.Protocol.DESCRIPTOR, protocol)
        uses = (
            ("name", port.name, (port.name,)),
            ("target", f"{port.target}/{shown}", (port.target, protocol)),
            ("published", f"{port.published}/{shown}", (port.published, protocol)),
        )
        for field, what, value in uses:
            first = seen.setdefault((field, *value), index) if value[0] else index
            if first != index:
                yield Problem(keys=(*path, index, field), message=f"{what} is used by ports[{first}] already")


def _port(port: pb.Port, path: Path) -> Iterator[Problem]:
    """`ingress` may stand on any port: it is the default."""
    if port.mode == pb.PUBLISH_MODE_HOST and not port.published:
        yield Problem(keys=(*path, "mode"), message="tells where a published port listens", hint="write published, too")


def _ulimit(ulimit: pb.Ulimit, path: Path) -> Iterator[Problem]:
    if ulimit.HasField("hard") and ulimit.soft > ulimit.hard:
        yield Problem(keys=(*path, "soft"), message=f"{ulimit.soft} is more than hard, {ulimit.hard}")


_RULES: Mapping[str, Callable[[Any, Path], Iterator[Problem]]] = {
    message.DESCRIPTOR.full_name: rule
    for message, rule in (
        (pb.Node, _node),
        (pb.Meta, _meta),
        (pb.Network, networking.network_problems),
        (pb.ServiceSpec, _service),
        (pb.UpdatePolicy, updating.problems),
        (pb.DisruptionPolicy, updating.disruption_problems),
        (pb.TaskTemplate, _template),
        (pb.Container, _container),
        (pb.Port, _port),
        (pb.Ulimit, _ulimit),
        (pb.Resources, placement.resource_problems),
        (pb.Placement, placement.problems),
        (pb.Toleration, placement.toleration_problems),
        (pb.NodeSpec, placement.node_problems),
        (pb.Taint, placement.taint_problems),
    )
}
