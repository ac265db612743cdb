"""An apply warns of updates: what counts for nothing, takes all down at once, or lets no task ever leave a node."""

import pytest

from controlplane.core import update_policy
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.warned import applied

ALL, GLOBAL = pb.UpdatePolicy(parallelism=0), pb.SERVICE_MODE_GLOBAL
STOP_FIRST, START_FIRST = pb.UPDATE_ORDER_STOP_FIRST, pb.UPDATE_ORDER_START_FIRST


def taking(
    what: str,
    update: pb.UpdatePolicy,
    *,
    replicas: int = 3,
    mode: pb.ServiceMode.ValueType = pb.SERVICE_MODE_REPLICATED,
) -> pb.Service:
    """A service whose tasks take something of their nodes."""
    made = build.service(replicas=replicas)
    made.spec.mode = mode
    made.spec.update.CopyFrom(update)
    container = made.spec.template.container
    match what:
        case "port":
            container.ports.add(target=80, published=8080, mode=pb.PUBLISH_MODE_HOST)
        case "gpu":
            container.resources.reservations.generic["gpu"] = 1
        case "no gpu":
            container.resources.reservations.generic["gpu"] = 0
        case "fence":
            made.spec.on_node_loss.fence = True
        case _:
            pass
    return made


@pytest.mark.parametrize(
    ("update", "field"),
    [
        (pb.UpdatePolicy(canary=5), "spec.update.canary"),
        (pb.UpdatePolicy(canary=2), "spec.update.canary"),
        (pb.UpdatePolicy(canary=1), ""),
        (pb.UpdatePolicy(parallelism=1, max_surge="1"), "spec.update.parallelism"),
        (pb.UpdatePolicy(max_surge="1"), ""),
        (pb.UpdatePolicy(parallelism=1), ""),
    ],
    ids=lambda value: str(value).replace("\n", " "),
)
def test_what_of_an_update_counts_for_nothing_is_told(update: pb.UpdatePolicy, field: str) -> None:
    made = build.service(replicas=2)
    made.spec.update.CopyFrom(update)
    assert [line.partition(":")[0] for line in applied(made)] == ([field] if field else [])


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (taking("port", ALL), ["spec.update.order", "port 8080", "parallelism: 0 all at once", "or start-first"]),
        (taking("gpu", ALL), ["spec.update.order", "gpu of their nodes", "parallelism: 0 all at once"]),
        (taking("gpu", pb.UpdatePolicy(parallelism=3)), ["spec.update.order", "parallelism: 3 all at once"]),
        (taking("port", ALL, mode=GLOBAL), ["spec.update.order", "write parallelism: 1"]),
        (taking("fence", ALL), ["spec.update.parallelism", "fenced tasks stop", "write parallelism: 1"]),
        (taking("nothing", ALL), []),
        (taking("no gpu", ALL), []),
        (taking("gpu", pb.UpdatePolicy(parallelism=2)), []),
        (taking("gpu", pb.UpdatePolicy(parallelism=3), mode=GLOBAL), []),
        (taking("gpu", pb.UpdatePolicy()), []),
        (taking("gpu", ALL, replicas=1), []),
        (taking("gpu", pb.UpdatePolicy(parallelism=0, order=STOP_FIRST)), []),
        (taking("gpu", pb.UpdatePolicy(parallelism=0, order=START_FIRST)), []),
    ],
)
def test_who_replaces_all_at_once_is_told_when_they_stop_first(made: pb.Service, words: list[str]) -> None:
    """Where that was not said: else it is blue and green, or what they want."""
    lines = [line for line in applied(made) if "spec.update" in line]
    assert len(lines) == bool(words)
    assert [word for word in words if word not in lines[0]] == []


def test_none_of_a_thing_is_nothing_that_two_tasks_cannot_have() -> None:
    made = taking("no gpu", pb.UpdatePolicy())
    assert update_policy.of(made.spec, made.spec.template, 3).surge == 1


@pytest.mark.parametrize(
    ("policy", "order", "field"),
    [
        (pb.DisruptionPolicy(min_available="5"), pb.UPDATE_ORDER_STOP_FIRST, "spec.disruption.minAvailable"),
        (pb.DisruptionPolicy(min_available="51%"), pb.UPDATE_ORDER_STOP_FIRST, "spec.disruption.minAvailable"),
        (pb.DisruptionPolicy(max_unavailable="49%"), pb.UPDATE_ORDER_STOP_FIRST, "spec.disruption.maxUnavailable"),
        (pb.DisruptionPolicy(min_available="50%"), pb.UPDATE_ORDER_STOP_FIRST, ""),
        (pb.DisruptionPolicy(max_unavailable="1"), pb.UPDATE_ORDER_STOP_FIRST, ""),
        (pb.DisruptionPolicy(min_available="5"), pb.UPDATE_ORDER_START_FIRST, ""),
        (pb.DisruptionPolicy(), pb.UPDATE_ORDER_STOP_FIRST, ""),
    ],
    ids=lambda value: str(value).replace("\n", " "),
)
def test_a_service_that_can_never_leave_a_node_is_told(
    policy: pb.DisruptionPolicy, order: pb.UpdateOrder.ValueType, field: str
) -> None:
    made = build.service(replicas=2)
    made.spec.disruption.CopyFrom(policy)
    made.spec.update.order = order
    lines = applied(made)
    assert [line.partition(":")[0] for line in lines] == ([field] if field else [])
    assert all("waits until its --deadline" in line for line in lines)
