"""What can be asked of rollouts through the API: it changes the spec, survives applies, or is refused with a reason."""

from pathlib import Path

import grpc
import pytest

from protos import headers
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2
from tests.support import aio, api_world
from tests.support.api_world import apply_request, refusal, service

ANN = ((headers.ACTOR, "ann@laptop"),)


def asked(action: pb.RolloutAction.ValueType, **more: object) -> pb.RolloutRequest:
    """A request for the service `web`."""
    reference = pb.ObjectReference(kind="service", namespace="default", name="web")
    return pb.RolloutRequest(reference=reference, action=action, **more)  # type: ignore[arg-type]  # fields by name


@aio.bounded(20)
async def test_what_people_said_survives_an_apply(tmp_path: Path) -> None:
    """And an apply warns of what they may have forgotten; no manifest can say it."""
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service()))
        await world.stub.Rollout(asked(pb.ROLLOUT_ACTION_STOP))
        paused = await world.stub.Rollout(asked(pb.ROLLOUT_ACTION_PAUSE))
        assert "paused" in paused.message
        assert (await world.stub.Apply(apply_request(service()))).results[0].action == pb.APPLY_ACTION_UNCHANGED
        sly = service(image="hello:2")
        sly.spec.stopped = False
        sly.spec.rollout.asked_by = "somebody else"
        result = (await world.stub.Apply(apply_request(sly), metadata=ANN)).results[0]
        spec = result.object.service.spec
        assert (spec.stopped, spec.rollout.paused, spec.rollout.asked_by) == (True, True, "ann@laptop")
        assert any("orchctl start web" in warning for warning in result.warnings)
        assert any("orchctl rollout resume web" in warning for warning in result.warnings)


@aio.bounded(20)
async def test_another_template_forgets_what_was_said_of_the_one_before(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service()))
        found = (await world.stub.Get(pb.GetRequest(reference=asked(0).reference))).service  # type: ignore[arg-type]
        found.status.observed_generation = found.meta.generation
        found.status.rollout.CopyFrom(
            objects_pb2.RolloutStatus(
                state=objects_pb2.ROLLOUT_STATE_ROLLING, revision_id="two", stable_revision_id="one"
            )
        )
        await world.put(found)
        aborted = (await world.stub.Rollout(asked(pb.ROLLOUT_ACTION_ABORT))).service
        assert aborted.spec.rollout.aborted_revision_id == "two"
        changed = (await world.stub.Apply(apply_request(service(image="hello:2")))).results[0].object.service
        assert changed.spec.rollout.aborted_revision_id == ""


@aio.bounded(20)
async def test_undo_writes_the_template_of_an_older_revision(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service(image="hello:2")))
        meta = objects_pb2.Meta(id="web-1-x", name="web-1", namespace="default")
        older = objects_pb2.Revision(meta=meta, service="web", number=1, written=service(image="hello:1").spec.template)
        await world.put(older)
        undone = await world.stub.Rollout(asked(pb.ROLLOUT_ACTION_UNDO), metadata=ANN)
        assert undone.service.spec.template.container.image == "hello:1"
        assert undone.service.spec.rollout.asked_by == "ann@laptop"
        assert undone.message == "goes back to revision 1"


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (asked(pb.ROLLOUT_ACTION_PROMOTE), grpc.StatusCode.FAILED_PRECONDITION, "was changed a moment ago"),
        (asked(pb.ROLLOUT_ACTION_RESUME), grpc.StatusCode.FAILED_PRECONDITION, "is paused"),
        (asked(pb.ROLLOUT_ACTION_UNDO, revision=7), grpc.StatusCode.NOT_FOUND, "no revision 7"),
        (asked(pb.ROLLOUT_ACTION_UNSPECIFIED), grpc.StatusCode.INVALID_ARGUMENT, "says nothing"),
    ],
    ids=["promote", "resume", "undo", "nothing"],
)
@aio.bounded(20)
async def test_what_makes_no_sense_is_refused(
    tmp_path: Path, request_: pb.RolloutRequest, code: grpc.StatusCode, said: str
) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service()))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.stub.Rollout(request_)
        answered, error = refusal(raised.value)
        assert answered is code
        assert said in error.message


@aio.bounded(20)
async def test_a_global_service_has_no_number(tmp_path: Path) -> None:
    """It gets none when it is made, and `scale` is refused with the reason."""
    async with api_world.opened(tmp_path) as world:
        wanted = service()
        wanted.spec.mode = objects_pb2.SERVICE_MODE_GLOBAL
        wanted.spec.ClearField("replicas")
        made = (await world.stub.Apply(apply_request(wanted))).results[0].object.service
        assert not made.spec.HasField("replicas")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.stub.Scale(pb.ScaleRequest(reference=asked(0).reference, replicas=2))  # type: ignore[arg-type]
        assert "one task on each node" in refusal(raised.value)[1].message
