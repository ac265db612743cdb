"""Bugs about containers around the main one, dependencies and services for a while."""

from agent import worker
from agent.core import around, observed
from agent.core.assignments import Assignments
from agent.core.observed import Desired, Observed
from controlplane.core import dependencies, expiry, plan
from protos import containers
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.planting import Plant, instead

REST = frozenset({"whole at rest"})

_right_desired = worker._desired


def _desire_to_run(task: pb.Task, assigned: Assignments) -> Desired:
    """A task that is held is taken for one that is to run."""
    copy = plan.copy(task)
    copy.desired_state = max(task.desired_state, pb.DESIRED_STATE_RUNNING)
    return _right_desired(copy, assigned)


def _main_alone(seen: Observed, _desired: Desired) -> list[str]:
    """Whatever becomes of a sidecar after the main container's start is nobody's business."""
    return [""] if seen.has_run else [one.name for one in _desired.template.sidecars] + [""]


CROWD_PLANTS = (
    Plant(
        name="what became of init containers is not written down",
        bug=instead(observed.Observed, "memory", property(lambda self: self.record)),
        caught_by=frozenset({"first things first"}),
        hint=1,
    ),
    Plant(
        name="the main container does not wait for the init containers",
        bug=instead(around, "init_in_turn", lambda *_: ""),
        caught_by=frozenset({"first things first"}),
        hint=1,
    ),
    Plant(
        name="a sidecar that ended is not started again",
        bug=instead(around, "_after_init", _main_alone),
        caught_by=REST,
        hint=20,
    ),
    Plant(
        name="a task that is held is started",
        bug=instead(worker, "_desired", _desire_to_run),
        caught_by=frozenset({"what is held does not run"}),
        hint=3,
    ),
    Plant(
        name="a dependency that is there counts as fulfilled",
        bug=instead(dependencies, "_is_fulfilled", lambda *_: True),
        caught_by=frozenset({"nobody starts too early"}),
        hint=3,
    ),
    Plant(
        name="what was held is forgotten",
        bug=instead(dependencies, "let_go", lambda *_: iter(())),
        caught_by=REST,
        hint=5,
    ),
    Plant(
        name="a service goes before those that need it",
        bug=instead(dependencies, "needed_by", lambda *_: ()),
        caught_by=frozenset({"what is needed stays"}),
        hint=91,
    ),
    Plant(
        name="sidecars need no room",
        bug=instead(containers, "reserved", lambda template: template.container.resources.reservations),
        caught_by=frozenset({"capacity"}),
        hint=20,
    ),
    Plant(
        name="a service for a while stays for ever",
        bug=instead(expiry, "expire", lambda *_: plan.NOTHING),
        caught_by=REST,
        hint=10,
    ),
)
