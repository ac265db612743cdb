"""`--sort-by`: columns as people read them, fields as they are stored, and what says nothing last."""

from collections.abc import Sequence

import pytest

from orchctl import fieldpaths, ordering, tables, words
from orchctl.errors import InvalidInput
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.support import samples

VIEW = tables.View(now_ms=samples.NOW_MS, node_names={"node-1": "n1"})
SERVICE, NODE = words.kind("service"), words.kind("node")


def service(name: str, *, asked: int = 1, age_ms: int = 1_000, team: str = "") -> pb.Service:
    made = samples.service(name, asked=asked)
    made.meta.created_at = samples.NOW_MS - age_ms
    if team:
        made.meta.labels["team.x"] = team
    return made


SERVICES = [
    service("web-10", asked=2, age_ms=5_000, team="b"),
    service("web-9", asked=10, age_ms=90_000),
    service("api", asked=9, age_ms=2_000, team="a"),
]


def sorted_names(by: str, values: Sequence[kinds.StoredObject] = SERVICES, kind: kinds.Kind = SERVICE) -> list[str]:
    return [value.meta.name for value in ordering.sort(values, kind, by, VIEW)]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("NAME", ["api", "web-9", "web-10"]),
        ("-name", ["web-10", "web-9", "api"]),
        ("AGE", ["api", "web-10", "web-9"]),
        ("-AGE", ["web-9", "web-10", "api"]),
        ("meta.createdAt", ["web-9", "web-10", "api"]),
        ("spec.replicas", ["web-10", "api", "web-9"]),
        ("meta.labels.team.x", ["api", "web-10", "web-9"]),
        ("-meta.labels.team.x", ["web-10", "api", "web-9"]),
        ("spec.template.container.image", ["api", "web-10", "web-9"]),
    ],
)
def test_rows_are_in_the_order_that_was_asked_for(by: str, names: list[str]) -> None:
    assert sorted_names(by) == names


def test_sizes_are_numbers() -> None:
    """1.2Gi is more than 900Mi."""
    nodes = [samples.node(), samples.node()]
    for node, name, memory in zip(nodes, ("large", "small"), (1_300 << 20, 900 << 20), strict=True):
        node.meta.name, node.status.description.capacity.memory = name, memory
    assert sorted_names("memory", nodes, NODE) == ["small", "large"]


@pytest.mark.parametrize("by", ["first seen", "last seen"])
def test_ages_are_times(by: str) -> None:
    """9 minutes are less than 10."""
    events = [samples.event(), samples.event()]
    for event, name, minutes in zip(events, ("old", "young"), (10, 9), strict=True):
        event.meta.name = name
        event.status.first_seen = event.status.last_seen = samples.NOW_MS - minutes * 60_000
    assert sorted_names(by, events, words.kind("event")) == ["young", "old"]


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("size", "services have no column size"),
        ("-", "--sort-by needs a column or a field"),
        ("spec.replicass", "a service has no field spec.replicass"),
        ("spec.template", "spec.template of a service is not one value"),
        ("spec.networks", "spec.networks of a service is not one value"),
        ("spec.networks.x", "a service has no field spec.networks.x"),
        ("meta.labels", "meta.labels of a service is not one value"),
    ],
)
def test_what_cannot_be_sorted_by_is_refused(by: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as raised:
        sorted_names(by)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("spec.replicas", "3"),
        ("spec.mode", "replicated"),
        ("status.settled", "true"),
        ("meta.labels.app", ""),
        ("spec.template.stopGracePeriod", ""),
        ("meta.createdAt", "2023-11-14T22:13:19.000Z"),
    ],
)
def test_a_field_says_what_a_manifest_would(path: str, said: str) -> None:
    value = samples.service()
    value.meta.created_at = 1_700_000_000_000 - 1_000
    assert fieldpaths.parse(SERVICE, path).words(value) == said
