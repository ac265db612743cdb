"""Thousands of hostile messages to every call of a real instance, and to its door; `make bench ONLY=doorfuzz` sends
60,000 and 20,000."""

from pathlib import Path

import grpc
import pytest

from controlplane.core.trust import rules
from protos.orch.v1 import control_pb2 as pb
from tests.support import aio, doorfuzz, knockfuzz

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
