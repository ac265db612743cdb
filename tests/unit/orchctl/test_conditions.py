"""What `wait --for` waits for, and when that is so or never can be."""

import pytest

from orchctl import conditions, words
from orchctl.conditions import Now
from orchctl.errors import InvalidInput
from orchctl.progress import Phase, Target
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.support import samples


def phase(condition: str, value: kinds.StoredObject, *, gone: bool = False) -> Phase:
    """Where an object stands."""
    now = Now(value=None if gone else value, tasks=[], now_ms=samples.NOW_MS)
    return conditions.parse(condition, kinds.of(value))(Target.of(value), now).phase


def service(*, ready: int = 3, updated: int = 3, settled: bool = True, rollout: str = "COMPLETED") -> pb.Service:
    made = samples.service(asked=3, ready=ready, settled=settled)
    made.status.updated = updated
    made.status.rollout.state = pb.RolloutState.Value(f"ROLLOUT_STATE_{rollout}")
    return made


def went_through() -> pb.Service:
    """With `onFailure: continue`, to an end at which some tasks do not work."""
    made = service(updated=2, settled=False, rollout="FAILED")
    made.status.rollout.stable_revision_id = "rev1"
    return made


def unobserved() -> pb.Service:
    made = service()
    made.meta.generation += 1
    return made


def deleted() -> pb.Service:
    made = service()
    made.meta.deleted_at = samples.NOW_MS
    return made


def draining(left: int, *, observed: bool = True) -> pb.Node:
    made = samples.node()
    made.spec.availability = pb.AVAILABILITY_DRAIN
    made.meta.generation = 4
    made.status.drain.CopyFrom(pb.DrainStatus(observed_generation=4 if observed else 3, left=left))
    return made


DOWN = samples.node()
DOWN.status.state = pb.NODE_STATE_DOWN
FAILED = samples.task(1, state=pb.TASK_STATE_FAILED)
D, W, I = Phase.DONE, Phase.WAITING, Phase.IMPOSSIBLE  # noqa: E741 - a table's heads


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ("settled", service(), D),
        ("settled", service(settled=False), W),
        ("ready", service(settled=False), D),
        ("ready", service(ready=2, settled=False), W),
        ("rollout", service(), D),
        ("rollout", service(updated=1, settled=False), W),
        ("settled", service(updated=1, settled=False, rollout="WAITING"), D),
        ("rollout", service(updated=1, settled=False, rollout="WAITING"), W),
        ("rollout", service(updated=1, settled=False, rollout="PAUSED"), I),
        ("rollout", service(rollout="ROLLED_BACK"), I),
        ("ready", service(ready=2, settled=False, rollout="WAITING"), W),
        ("ready", service(updated=1, settled=False, rollout="WAITING"), D),
        ("ready", service(rollout="ROLLED_BACK"), D),
        ("ready", service(ready=2, settled=False, rollout="ROLLED_BACK"), W),
        ("ready", service(settled=False, rollout="PAUSED"), D),
        ("ready", unobserved(), W),
        ("ready", deleted(), I),
        ("rollout", unobserved(), W),
        ("ready", samples.task(1), D),
        ("ready", samples.PENDING, W),
        ("ready", FAILED, I),
        ("ready", samples.node(), D),
        ("ready", DOWN, W),
        ("deleted", service(), W),
        ("settled", service(ready=2, settled=False, rollout="FAILED"), W),
        ("settled", went_through(), I),
        ("ready", went_through(), D),
        ("status.ready=3", service(), D),
        ("status.ready=0", service(ready=0, settled=False), D),
        ("status.ready=2", service(), W),
        ("status.settled=false", service(settled=False), D),
        ("spec.mode=replicated", service(), D),
        ("spec.availability=drain", samples.node(), W),
        ("meta.labels.app=", service(), D),
        ("drained", draining(0), D),
        ("drained", draining(2), W),
        ("drained", draining(0, observed=False), W),
        ("drained", samples.node(), I),
    ],
)
def test_where_an_object_stands(condition: str, value: kinds.StoredObject, expected: Phase) -> None:
    assert phase(condition, value) is expected


@pytest.mark.parametrize(
    ("condition", "expected"), [("deleted", D), ("settled", I), ("ready", I), ("rollout", I), ("status.ready=3", I)]
)
def test_what_is_gone_is_deleted_and_never_anything_else(condition: str, expected: Phase) -> None:
    assert phase(condition, service(), gone=True) is expected


@pytest.mark.parametrize(
    ("condition", "kind", "message"),
    [
        ("red", "service", "no condition 'red'"),
        ("ready", "network", "a network is never ready"),
        ("rollout", "node", "a node is never rollout"),
        ("drained", "service", "a service is never drained"),
        ("spec.replicass=1", "service", "a service has no field spec.replicass"),
        ("spec=1", "service", "not one value"),
    ],
)
def test_what_can_never_be_asked_is_refused(condition: str, kind: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        conditions.parse(condition, words.kind(kind))
