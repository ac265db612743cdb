"""What a service asks for, as `describe` tells it: in the words of the manifest."""

import pytest

from orchctl import pages, policies
from orchctl.tables import View
from protos.orch.v1 import objects_pb2 as pb
from tests.support import samples

VIEW = View(now_ms=samples.NOW_MS)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (pb.UpdatePolicy(), "parallelism 1, onFailure pause"),
        (
            pb.UpdatePolicy(parallelism=0, delay=10_000, order=pb.UPDATE_ORDER_START_FIRST, canary=2),
            "parallelism 0, delay 10s, order start-first, onFailure pause, canary 2",
        ),
        (
            pb.UpdatePolicy(max_surge="25%", on_failure=pb.UPDATE_FAILURE_ACTION_ROLLBACK),
            "onFailure rollback, maxSurge 25%",
        ),
    ],
)
def test_an_update_is_told_as_it_is_written(policy: pb.UpdatePolicy, expected: str) -> None:
    assert policies.update(policy) == expected


def test_a_page_tells_everything_that_a_service_asks_for() -> None:
    """What it takes of a node, where it goes, and what may be done to it."""
    service = samples.service()
    service.meta.annotations["owner"] = "Ann, phone 42"
    service.meta.annotations["file"] = "x" * 10_000
    spec = service.spec
    spec.priority = -3
    spec.disruption.min_available = "75%"
    spec.rebalance.mode = pb.REBALANCE_MODE_OFF
    reservations = spec.template.container.resources.reservations
    reservations.cpu, reservations.memory, reservations.pids, reservations.disk = 500, 2**26, 100, 2**30
    reservations.generic["gpu"] = 2
    spec.template.sidecars.add(name="proxy").resources.reservations.pids = 20
    spec.template.placement.CopyFrom(
        pb.Placement(
            constraints=["node.labels.zone in (a, b)", "node.name != n1"],
            preferences=[pb.Preference(expression="node.labels.disk == ssd", weight=10)],
            spread=[pb.Spread(by="node.labels.zone", max_skew=1), pb.Spread(by="node.name")],
            near=[pb.Affinity(service="cache", by="node.labels.zone", weight=5)],
            apart=[pb.Affinity(service="hello")],
            max_per_node=2,
            tolerations=[
                pb.Toleration(key="gpu", value="a100", effect=pb.TAINT_EFFECT_NO_SCHEDULE),
                pb.Toleration(effect=pb.TAINT_EFFECT_NO_EXECUTE),
            ],
        )
    )
    lines = pages.service(service, [], [], VIEW)
    for line in (
        f"Annotations:    file={'x' * 99}…, owner=Ann, phone 42",
        "Update:         parallelism 1, onFailure pause",
        "Disruption:     minAvailable 75%",
        "Rebalance:      mode off",
        "Priority:       -3",
        "  Reserved:       500m cpu, 64Mi memory, 120 processes, 1Gi disk, 2 gpu",
        "Placement:",
        "  Constraints:    node.labels.zone in (a, b); node.name != n1",
        "  Preferences:    node.labels.disk == ssd (weight 10)",
        "  Spread:         node.labels.zone, maxSkew 1; node.name",
        "  Near:           cache by node.labels.zone (weight 5)",
        "  Apart:          hello",
        "  On one node:    at most 2",
        "  Tolerations:    gpu=a100:no-schedule, every taint:no-execute",
    ):
        assert line in lines


def test_what_is_not_asked_for_is_not_told() -> None:
    lines = pages.service(samples.service(), [], [], VIEW)
    told = {line.partition(":")[0].strip() for line in lines}
    assert not told & {"Annotations", "Rebalance", "Priority", "Reserved", "Placement", "Spread"}
    assert "Disruption:     maxUnavailable 1" in lines
