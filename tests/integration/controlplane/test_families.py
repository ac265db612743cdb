"""A cluster that gets a second family of addresses: what the leader gives to whom is there already."""

import asyncio
from pathlib import Path

from controlplane.store import memory
from protos import families
from protos.orch.v1 import control_pb2 as pb
from tests.support import aio
from tests.support.api_world import apply_request, service
from tests.support.instances import A_MOMENT_S, BOTH, Agent, eventually, instances, settled


@aio.bounded(40)
async def test_a_leader_with_ranges_of_both_families_gives_what_is_there_the_second_one(tmp_path: Path) -> None:
    async with instances(memory.MemoryStore(), tmp_path, "cp1", "cp2", second=BOTH) as (cp1, cp2), cp2.stub() as stub:
        wanted = service(replicas=1)
        wanted.spec.template.container.ports.add(target=80)
        async with asyncio.TaskGroup() as group:
            session = group.create_task(Agent("n1").run(cp1.address))
            await stub.Apply(apply_request(wanted))
            before = (await settled(stub, "web")).status
            session.cancel()
        assert (before.address, before.address6) == ("10.201.0.1", "")
        assert cp1.task is not None
        cp1.task.cancel()
        await aio.until(cp2.leads, what="the second instance leads", timeout_s=A_MOMENT_S)
        async with asyncio.TaskGroup() as group:
            session = group.create_task(Agent("n1").run(cp2.address))
            for kind, name, first, then in (
                ("service", "address", "10.201.0.1", "fd00:201::1"),
                ("node", "subnet", "10.112.0.0/24", "fd00:112::/64"),
            ):
                request = pb.ListRequest(kind=kind)
                answer = await eventually(
                    lambda request=request: stub.List(request),
                    lambda answer: then in str(answer),  # noqa: B023
                )
                status = getattr(answer.objects[0], kind).status
                assert families.every(status, name) == (first, then)
            session.cancel()
