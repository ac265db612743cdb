"""Thousands of hostile messages to every call of a real instance, and to its door; `make bench ONLY=doorfuzz` sends
60,000 and 20,000."""

from pathlib import Path

import grpc
import pytest

from controlplane.core.trust import rules
from protos import states
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2
from tests.support import aio, api_world, doorfuzz, knockfuzz, swollenfuzz, trusted

SEED = 20260101
MESSAGES = 3_000
KNOCKS = 2_000
KEPT_MB = 40


@pytest.mark.slow
@aio.bounded(280)
async def test_whatever_is_sent_to_any_call_is_answered_in_words_and_in_time(tmp_path: Path) -> None:
    """Nothing trips, nothing is kept, and an honest call is answered afterwards as before."""
    async with doorfuzz.target(tmp_path) as target:
        await doorfuzz.send(SEED, range(1_000), target)
        before_mb = doorfuzz.memory_mb()
        await doorfuzz.send(SEED, range(1_000, MESSAGES), target)
        assert doorfuzz.memory_mb() - before_mb < KEPT_MB
        assert target.codes[grpc.StatusCode.OK] > MESSAGES / 20, "too wild to try anything"
        assert target.codes[grpc.StatusCode.INVALID_ARGUMENT] > MESSAGES / 5, "too mild to try anything"
        async with target.cluster.control(target.cluster.admin) as stub:
            assert (await stub.Version(pb.VersionRequest())).instance == "cp1"
        await aio.until(lambda: target.cluster.doorman.calls == 0, what="every call has ended", timeout_s=20)


def test_every_call_is_tried() -> None:
    """Those of a service that is new, too."""
    tried = {doorfuzz.case(SEED, number).path for number in range(3_000)}
    assert tried == set(rules.RULES) - {rules.METRICS}, "which is a page and no call"


@pytest.mark.slow
@aio.bounded(280)
async def test_however_somebody_knocks_the_door_answers_or_hangs_up(tmp_path: Path) -> None:
    """In words and in time; nothing trips, nothing is kept, and an honest join goes through afterwards."""
    async with knockfuzz.target(tmp_path) as target:
        await knockfuzz.send(SEED, range(KNOCKS // 2), target)
        before_mb = doorfuzz.memory_mb()
        await knockfuzz.send(SEED, range(KNOCKS // 2, KNOCKS), target)
        assert doorfuzz.memory_mb() - before_mb < KEPT_MB
        assert target.outcomes["hung up"] > KNOCKS / 20, "too mild to try the framing"
        assert target.outcomes["refusal"] > KNOCKS / 5, "too wild to try a join"
        assert target.outcomes["joined"] > 0, "too wild to be let in"
        await aio.until(lambda: target.knocking.open == 0, what="every connection has ended", timeout_s=20)
        await target.cluster.join("honest")


@pytest.mark.slow
@aio.bounded(280)
async def test_however_long_a_text_is_that_a_node_registers_with_the_control_plane_goes_on(tmp_path: Path) -> None:
    """Up to 2 MB, each of a node that has not registered yet; one that is honest does afterwards."""
    async with swollenfuzz.target(tmp_path) as target:
        own = await target.new_node()
        for way, size in swollenfuzz.in_every_size(wire.Register):
            if await target.register(own, swollenfuzz.swollen(trusted.register(own).register, way, size)):
                own = await target.new_node()
        assert target.outcomes["taken"] > 0, "too wild to be registered"
        async with trusted.session(target.cluster, await target.new_node()):
            assert target.cluster.instance.leader().here


@pytest.mark.slow
@aio.bounded(280)
async def test_however_long_a_text_is_that_a_node_says_the_control_plane_goes_on(tmp_path: Path) -> None:
    """Reports are about a task that the node has."""
    async with swollenfuzz.target(tmp_path) as target:
        own = await target.new_node()
        status = objects_pb2.TaskStatus(state=states.RUNNING)
        task = wire.TaskReport(task_id=await target.given_task(own), namespace="default", status=status)
        said = {
            "statuses": wire.StatusReport(sequence=1, tasks=[task]),
            "heartbeat": wire.Heartbeat(number=1),
            "resync": wire.Resync(),
            "network_applied": wire.NetworkApplied(),
            "blobs_held": wire.BlobsHeld(),
            "leaving": wire.Leaving(),
        }
        for kind, honest in said.items():
            for way, size in swollenfuzz.in_every_size(type(honest)):
                await target.say(own, swollenfuzz.swollen(honest, way, size), kind)
        assert target.outcomes["taken"] > 0, "too wild to be heard"


@pytest.mark.slow
@aio.bounded(280)
async def test_however_long_a_text_of_a_manifest_is_the_control_plane_goes_on(tmp_path: Path) -> None:
    """Whatever is taken gets its revision and its task, and is deleted again."""
    async with swollenfuzz.target(tmp_path) as target:
        for honest in (api_world.service(replicas=1), objects_pb2.Network(meta=objects_pb2.Meta(name="net"))):
            for way, size in swollenfuzz.in_every_size(type(honest)):
                await target.apply(swollenfuzz.swollen(honest, way, size))
        assert target.outcomes["taken"] > 0, "too wild to be applied"
        assert target.outcomes["refused"] > 0, "too mild to try the bounds"
