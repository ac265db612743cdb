"""Any valid object: built field by field from the schema, so that new fields are covered the day they are added."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from manifests import fields, networking, rules, words
from protos import schema
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import agreeing

# What a reader of YAML is most easily wrong about.
TRAPS = [
    "", " ", "no", "No", "on", "y", "true", "null", "~", "NULL", "0777", "0o17", "0x1F", "1e3", "1_000", "1:30", ".inf",
    ".nan", "-", "--- a", "...", "? x", "a: b", "a:", ":a", "a #b", "#", "&a", "*a", "!a", "<<", "=", "%a", "@a", "`a",
    "'", '"', "a'b", "{a", "[a", "a\tb", "\t", "a\nb", "a\nb\n", "a\nb\n\n", "\na", " a\nb", "a\n\n b\n", "a \nb",
    "a\r\nb", "\x01", "\x7f", "\x85", "\u2028", "\ufeff", "\U0001f600", "2026-01-31", "2026-01-31T12:00:00Z", "64Mi",
    "10s", "#!/bin/sh\nset -e\n  echo hi # not a comment\n", "key: |\n  x\n", "\\n", "a\\", "é", "-1", "+1", "1.", ".5",
]  # fmt: skip

_NO_NUL = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.one_of(
    st.sampled_from(TRAPS),
    st.text(_NO_NUL, max_size=30),
    st.text(st.sampled_from("ab\n :#-'\"\t"), max_size=30),
)
_IMAGES = st.sampled_from(["hello", "busybox:1.36", "registry:5000/team/hello", "hello@sha256:" + "ab" * 32])
_SIGNALS = st.sampled_from(["SIGTERM", "HUP", "9", "SIGRTMIN+3"])
_ENV_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,10}", fullmatch=True).filter(lambda name: name[:5] != "ORCH_")
_LABEL_NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,10}[A-Za-z0-9])?", fullmatch=True)
_LABEL_VALUES = st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9._/:@+-]{0,10}[A-Za-z0-9])?)?", fullmatch=True)
_LABELS = st.dictionaries(_LABEL_NAMES, _LABEL_VALUES, max_size=3)
_REFERENCES = st.sampled_from(["web", "back-end", "other/web", "a/b"])
_PORTS = st.integers(1, 65_535).map(str)
_ATTRIBUTES = st.sampled_from(["node.name", "node.labels.zone"])
_CONSTRAINTS = st.sampled_from(["node.labels.zone == a", "node.name != n1", "node.labels.disk in (ssd, nvme)"])
_PARTS = st.one_of(st.integers(0, 999_999).map(str), st.integers(0, 100).map("{}%".format))

# Fields with rules that their options do not tell.
_SPECIAL: Mapping[str, st.SearchStrategy[Any]] = {
    "orch.v1.Meta.labels": _LABELS,
    "orch.v1.Meta.annotations": st.dictionaries(_LABEL_NAMES, TEXTS, max_size=3),
    "orch.v1.TaskTemplate.labels": _LABELS,
    "orch.v1.Container.image": _IMAGES,
    "orch.v1.Container.stop_signal": _SIGNALS,
    "orch.v1.Container.user": st.sampled_from(["0", "app", "1000:1000", "www-data:www-data"]),
    "orch.v1.Container.seccomp": st.sampled_from(["default", "unconfined", '{"defaultAction": "SCMP_ACT_ALLOW"}']),
    "orch.v1.Container.sysctls": st.dictionaries(
        st.sampled_from(["net.core.somaxconn", "kernel.shmmax"]), st.sampled_from(["1", "0777", "1 2"])
    ),
    "orch.v1.Capabilities.add": st.lists(st.sampled_from(["NET_ADMIN", "CAP_SYS_TIME"]), max_size=2),
    "orch.v1.Capabilities.drop": st.lists(st.sampled_from(["ALL", "CHOWN"]), max_size=2),
    "orch.v1.TaskTemplate.volumes": st.just([]),
    "orch.v1.Container.mounts": st.lists(
        st.sampled_from([pb.Mount(volume="work", path="/srv"), pb.Mount(volume="etc", path="/etc/x", read_only=True)]),
        max_size=2,
        unique_by=lambda one: one.volume,
    ),
    "orch.v1.Container.env": st.dictionaries(_ENV_NAMES, TEXTS, max_size=4),
    "orch.v1.ServiceSpec.networks": st.lists(_REFERENCES, max_size=3, unique=True),
    "orch.v1.AllowRule.from": _REFERENCES,
    "orch.v1.AllowRule.ports": st.just([]),
    "orch.v1.HttpProbe.headers": st.dictionaries(_LABEL_NAMES, TEXTS, max_size=2),
    "orch.v1.HttpProbe.port": _PORTS,
    "orch.v1.TcpProbe.port": _PORTS,
    "orch.v1.GrpcProbe.port": _PORTS,
    "orch.v1.ServiceSpec.depends_on": st.dictionaries(
        st.sampled_from(["database", "cache"]), st.sampled_from([pb.DEPENDENCY_CONDITION_READY])
    ),
    "orch.v1.ResourceReservations.generic": st.dictionaries(
        st.sampled_from(["gpu", "licence"]), st.integers(1, 8), max_size=2
    ),
    "orch.v1.Placement.constraints": st.lists(_CONSTRAINTS, max_size=2),
    "orch.v1.Preference.expression": _CONSTRAINTS,
    "orch.v1.Spread.by": _ATTRIBUTES,
    "orch.v1.Affinity.by": _ATTRIBUTES,
    "orch.v1.Affinity.service": st.sampled_from(["web", "database"]),
    "orch.v1.Placement.spread": st.lists(
        st.builds(pb.Spread, by=_ATTRIBUTES, max_skew=st.integers(0, 9)), max_size=2, unique_by=lambda one: one.by
    ),
    "orch.v1.Placement.near": st.lists(
        st.builds(pb.Affinity, service=st.just("near"), by=_ATTRIBUTES, weight=st.integers(0, 9)), max_size=2
    ),
    "orch.v1.Placement.tolerations": st.lists(
        st.sampled_from([pb.Toleration(), pb.Toleration(key="gpu", value="a100"), pb.Toleration(effect=1)]), max_size=2
    ),
    "orch.v1.UpdatePolicy.max_unavailable": _PARTS,
    "orch.v1.DisruptionPolicy.max_unavailable": _PARTS,
    "orch.v1.DisruptionPolicy.min_available": _PARTS,
    "orch.v1.ResourceReservations.pids": st.integers(0, 1),
    "orch.v1.NodeSpec.taints": st.lists(
        st.builds(pb.Taint, key=_LABEL_NAMES, value=st.sampled_from(["", "a100"]), effect=st.integers(1, 3)),
        max_size=2,
        unique_by=lambda one: one.key,
    ),
}
_KEYS: Mapping[str, st.SearchStrategy[str]] = {
    "orch.v1.Container.ulimits": st.sampled_from(sorted(words.ULIMITS)),
    "orch.v1.Container.tmpfs": st.sampled_from(["/tmp", "/var/cache/a b"]),
}
_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (0, 2**63 - 1),
}


def valid(message: Callable[[], Message]) -> st.SearchStrategy[Any]:
    """Valid messages of a type: what breaks a rule across fields is left out."""
    return messages(message).filter(lambda value: not rules.validate(value))


def services() -> st.SearchStrategy[pb.Service]:
    return valid(pb.Service)


def nodes() -> st.SearchStrategy[pb.Node]:
    return valid(pb.Node)


@st.composite
def messages(draw: st.DrawFn, message: Callable[[], Message]) -> Message:
    """Messages whose fields are right one by one."""
    value = message()
    for field in schema.fields_by_yaml_name(value.DESCRIPTOR).values():
        options = schema.rules(field)
        cluster_wide = isinstance(value, pb.Node)
        if not options.system and (options.required or draw(st.booleans())):
            _draw_field(draw, value, field)
        if field.name == "meta" and cluster_wide:
            getattr(value, "meta").ClearField("namespace")  # noqa: B009 - the type is known at run time only
        elif field.name == "meta":
            getattr(value, "meta").namespace = "default"  # noqa: B009
    if isinstance(value, pb.Probe):
        _ask_one_question(draw, value)
    if isinstance(value, pb.Hook):
        _do_one_thing(draw, value)
    agreeing.agree(value)
    return value


def _do_one_thing(draw: st.DrawFn, hook: pb.Hook) -> None:
    chosen = draw(st.sampled_from(["exec", "http", "sleep"]))
    for other in {"exec", "http", "sleep"} - {chosen}:
        hook.ClearField(other)
    if chosen == "sleep":
        hook.sleep = draw(st.integers(1, 1_000))
        hook.ClearField("timeout")
    elif not hook.HasField(chosen):
        inner = getattr(hook, chosen)
        inner.CopyFrom(draw(messages(type(inner))))


def _ask_one_question(draw: st.DrawFn, probe: pb.Probe) -> None:
    chosen = draw(st.sampled_from(networking.QUESTIONS))
    for question in networking.QUESTIONS:
        if question != chosen:
            probe.ClearField(question)
        elif not probe.HasField(question):
            inner = getattr(probe, question)
            inner.CopyFrom(draw(messages(type(inner))))
    probe.ClearField("success_threshold")


def _draw_field(draw: st.DrawFn, value: Message, field: FieldDescriptor) -> None:
    target = getattr(value, field.name)
    if field.full_name in _SPECIAL and schema.is_map(field):
        target.update(draw(_SPECIAL[field.full_name]))
    elif field.full_name in _SPECIAL and field.is_repeated:
        target.extend(draw(_SPECIAL[field.full_name]))
    elif schema.is_map(field):
        inner = fields.map_value(field)
        for key in draw(st.sets(_KEYS[field.full_name], max_size=2)):
            target[key].CopyFrom(draw(messages(type(target[key]))))
        assert inner.message_type is not None, f"{field.full_name} needs a row in _SPECIAL"
    elif schema.is_list(field):
        for _ in range(draw(st.integers(1 if schema.rules(field).required else 0, 3))):
            _draw_item(draw, target, field)
    elif field.message_type is not None:
        target.CopyFrom(draw(messages(type(target))))
    else:
        setattr(value, field.name, draw(_SPECIAL[field.full_name] if field.full_name in _SPECIAL else _scalars(field)))


def _draw_item(draw: st.DrawFn, target: Any, field: FieldDescriptor) -> None:
    if field.message_type is None:
        target.append(draw(_scalars(field)))
    else:
        item = target.add()
        item.CopyFrom(draw(messages(type(item))))


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    options = schema.rules(field)
    if field.type == FieldDescriptor.TYPE_STRING and options.pattern and not field.is_repeated:
        matching = st.from_regex(options.pattern, fullmatch=True, alphabet=_NO_NUL)
        return matching.filter(lambda text: len(text) <= options.max_items)
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.enum_type is not None:
        return st.sampled_from(sorted(schema.enum_words(field.enum_type).values()))
    least, most = _LIMITS[field.cpp_type]
    bounds = fields.minimum(field), fields.maximum(field)
    return st.integers(bounds[0] if bounds[0] is not None else least, bounds[1] if bounds[1] is not None else most)
