"""The audit log of a control plane: calls of every shape name what they are about, and so does the door."""

import asyncio
import json
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.core.trust import refusals
from controlplane.trust import audit
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc, objects_pb2, trust_pb2
from tests.support import aio, trusted
from tests.support.instances import Agent
from trust import joining

TIMEOUT_S = 20.0


def told(made: trusted.Cluster, call: str) -> list[dict[str, object]]:
    """The lines of one call, without their times."""
    path = made.folder / "audit.log"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in one.items() if key != "at"} for one in lines if one["call"] == call]


def service(name: str, *, replicas: int) -> objects_pb2.Object:
    container = objects_pb2.Container(image="hello", command=["/serve"])
    spec = objects_pb2.ServiceSpec(replicas=replicas, template=objects_pb2.TaskTemplate(container=container))
    return objects_pb2.Object(
        service=objects_pb2.Service(meta=objects_pb2.Meta(name=name, namespace="shop"), spec=spec)
    )


async def entries(made: trusted.Cluster) -> list[trust_pb2.AuditRecord]:
    """What the store has, once it has all."""
    await aio.until(lambda: not made.standing.book._waiting, what="the store has all", timeout_s=TIMEOUT_S)
    async with made.trust(made.admin) as admin:
        return list((await admin.ListAudit(trust_pb2.ListAuditRequest())).entries)


@aio.bounded(60)
async def test_calls_with_a_stream_of_requests_name_their_object(tmp_path: Path) -> None:
    """Done or refused, and by the name of what they are about."""
    async with trusted.cluster(tmp_path) as made:
        ann = await made.person("ann", "editor", "shop")
        async with made.control(made.admin) as stub:
            await stub.ImportImage(iter(trusted.archive_of_one_file("web:1")))
        async with made.control(ann) as stub:
            for namespace in ("bank", "shop"):
                start = pb.ExecStart(namespace=namespace, target="web", command=["cat", "password"])
                with pytest.raises(grpc.aio.AioRpcError):
                    await _first(stub.Exec(iter([pb.ExecRequest(start=start)])))
        assert told(made, "ImportImage") == [
            {"who": "root", "role": "admin", "call": "ImportImage", "objects": ["image web:1"]}
        ]
        bound, unknown = told(made, "Exec")
        assert (bound["who"], bound["objects"]) == ("ann", ["target bank/web"])
        assert "may not call Exec in namespace bank" in str(bound["refused"])
        assert (unknown["who"], unknown["objects"]) == ("ann", ["target shop/web"])
        assert "password" not in (tmp_path / "audit.log").read_text()


@aio.bounded(60)
async def test_what_changes_nothing_is_not_told(tmp_path: Path) -> None:
    """A dry run, and the same files again: who changed what would be lost among them, and no cluster ever at rest."""
    wanted = [service("web", replicas=0)]
    async with trusted.cluster(tmp_path) as made, made.control(made.admin) as stub:
        await stub.ImportImage(iter(trusted.archive_of_one_file("hello")))
        await stub.Apply(pb.ApplyRequest(objects=wanted, dry_run=True))
        assert told(made, "Apply") == []
        await stub.Apply(pb.ApplyRequest(objects=wanted))
        answer = await stub.Apply(pb.ApplyRequest(objects=wanted))
        assert [one.action for one in answer.results] == [pb.APPLY_ACTION_UNCHANGED]
        (line,) = told(made, "Apply")
        assert line["objects"] == ["service shop/web"]


async def _first(call: "grpc.aio.StreamStreamCall[object, object]") -> object:
    return await anext(aiter(call))


@aio.bounded(60)
async def test_a_call_that_its_caller_ends_is_told(tmp_path: Path) -> None:
    """Else whoever stops a command with Ctrl-C would leave no trace of it."""
    async with trusted.cluster(tmp_path) as made:
        own = await made.join("n1")
        async with trusted.session(made, own), made.control(made.admin) as stub:
            call = stub.Diagnose(pb.DiagnoseRequest(without_network=True))
            while not any(one.place == "n1-name" for one in (await call.read()).findings):  # type: ignore[attr-defined]
                continue  # then it waits for what this node finds on its machine, and that never comes
            call.cancel()
            await aio.until(lambda: bool(told(made, "Diagnose")), what="it is told", timeout_s=TIMEOUT_S)
            await aio.until(lambda: len(told(made, "Diagnose")) == 2, what="its end, too", timeout_s=TIMEOUT_S)
            begun, broken_off = told(made, "Diagnose")
            assert (begun["who"], begun["step"]) == ("root", "begun")
            assert (broken_off["step"], broken_off["refused"]) == ("broken off", audit.BROKEN_OFF)


@aio.bounded(60)
async def test_who_joins_is_told_and_who_may_not(tmp_path: Path) -> None:
    """With the token, by the name that it is listed by, and never with its secret. The cluster's log has the same."""
    async with trusted.cluster(tmp_path) as made, made.trust(made.admin) as admin:
        once = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", uses=1))
        person = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="viewer", person="vic", namespaces=["shop"]))
        await made.join("n1", once.token)
        await made.join("vic", person.token)
        with pytest.raises(joining.NotJoined):
            await made.join("n2", once.token)
        plain = {"call": "Join"}
        assert told(made, "Join") == [
            plain | {"who": "n1", "role": "node", "objects": ["node n1-name", f"token {once.record.id}"]},
            plain | {"who": "vic", "role": "viewer", "objects": [f"token {person.record.id}"]},
            plain
            | {
                "who": "127.0.0.1",
                "role": "node",
                "objects": ["node n2-name", f"token {once.record.id}"],
                "refused": f"the token {once.record.id} is used up",
            },
        ]
        assert told(made, "CreateToken")[1]["objects"] == ["role viewer", "person vic", "namespace shop"]
        secrets = [one.rpartition(".")[2] for one in (once.token, person.token)]
        assert not any(secret in (tmp_path / "audit.log").read_text() for secret in secrets)
        assert [one.who for one in await entries(made) if one.call == "Join"] == ["n1", "vic", "127.0.0.1"]


@aio.bounded(120)
async def test_a_member_that_is_refused_without_end_leaves_a_few_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the file and in the store, with how many there were; what others are refused is told as ever."""
    monkeypatch.setattr(audit, "LEFT_OUT_EVERY_S", 0.05)
    delete = pb.DeleteRequest(reference=pb.ObjectReference(kind="service", namespace="shop", name="web"))

    async def refused(stub: "control_pb2_grpc.ControlAsyncStub") -> str:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Delete(delete)
        return raised.value.details() or ""

    async with trusted.cluster(tmp_path) as made:
        node, ann = await made.join("n1"), await made.person("ann", "viewer")
        async with made.control(node) as stub:
            for _ in range(6):
                said = await asyncio.gather(*[refused(stub) for _ in range(50)])
                assert set(said) == {"node n1 may not call Delete"}
        async with made.control(ann) as stub:
            await refused(stub)
        by_node = [one for one in told(made, "Delete") if one["who"] == "n1"]
        assert len(by_node) == refusals.BURST
        assert [one["who"] for one in told(made, "Delete")][-1] == "ann"
        made.ahead_ms += 61_000
        await aio.until(lambda: told(made, "Delete")[-1]["who"] == "n1", what="the rest is told", timeout_s=TIMEOUT_S)
        assert told(made, "Delete")[-1]["refused"] == (
            "node n1 may not call Delete; and 279 more since the refusal before"
        )
        there = await entries(made)
        assert [one.who for one in there if one.call == "Delete"].count("n1") == refusals.BURST + 1
        assert "CreateToken" in [one.call for one in there]


@aio.bounded(60)
async def test_an_admin_who_is_bound_to_a_namespace_does_not_read_the_log(tmp_path: Path) -> None:
    """It tells of all namespaces, as the lists of members and tokens do. Who may read them leaves no entry by it."""
    async with trusted.cluster(tmp_path) as made:
        bound = await made.person("ann", "admin", "shop")
        async with made.trust(bound) as stub, made.trust(made.admin) as admin:
            for call, request in (
                ("ListAudit", trust_pb2.ListAuditRequest()),
                ("ListMembers", trust_pb2.ListMembersRequest()),
                ("ListTokens", trust_pb2.ListTokensRequest()),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await getattr(stub, call)(request)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert "admin ann may not call" in (refused.value.details() or "")
                await getattr(admin, call)(request)
                assert [one["who"] for one in told(made, call)] == ["ann"]


@aio.bounded(60)
async def test_an_apply_that_prunes_names_what_it_ended(tmp_path: Path) -> None:
    async with trusted.cluster(tmp_path) as made, made.control(made.admin) as stub:
        await stub.ImportImage(iter(trusted.archive_of_one_file("hello")))
        both = [service("web", replicas=0), service("old", replicas=0)]
        answer = await stub.Apply(pb.ApplyRequest(objects=both, stack="shop"))
        old = answer.results[1].object.service.meta.id
        await stub.Apply(pb.ApplyRequest(objects=both[:1], stack="shop", prune=True, agreed=[old]))
        assert [one["objects"] for one in told(made, "Apply")] == [
            ["service shop/web", "service shop/old"],
            ["service shop/old (ended)"],
        ]


@aio.bounded(60)
async def test_an_open_command_is_told_while_it_is_open(tmp_path: Path) -> None:
    """In the store, too: what an instance that is killed has begun is found there."""
    async with trusted.cluster(tmp_path) as made:
        agent = Agent("n1-name", own=await made.join("n1"))
        running = asyncio.create_task(agent.run(made.address))
        async with made.control(made.admin) as stub:
            await stub.ImportImage(iter(trusted.archive_of_one_file("hello")))
            await stub.Apply(pb.ApplyRequest(objects=[service("web", replicas=1)]))
            runs = lambda: any(task.status.ready for task in _tasks(made))  # noqa: E731
            await aio.until(runs, what="the task runs", timeout_s=TIMEOUT_S)
            call = stub.Exec()  # type: ignore[call-arg]
            start = pb.ExecStart(namespace="shop", target="web", command=["sh"])
            await call.write(pb.ExecRequest(start=start))
            await aio.until(lambda: bool(told(made, "Exec")), what="it is told", timeout_s=TIMEOUT_S)
            line = {"who": "root", "role": "admin", "call": "Exec", "objects": ["target shop/web"]}
            assert told(made, "Exec") == [line | {"step": "begun"}]
            assert [one.step for one in await entries(made) if one.call == "Exec"] == [trust_pb2.AUDIT_STEP_BEGUN]
            await call.write(pb.ExecRequest(stdin=b"exit"))
            await aio.until(lambda: len(told(made, "Exec")) == 2, what="its end is told", timeout_s=TIMEOUT_S)
            assert told(made, "Exec")[1] == line | {"step": "ended"}
        running.cancel()
        await asyncio.wait({running})


def _tasks(made: trusted.Cluster) -> list[objects_pb2.Task]:
    return list(made.instance.cache.snapshot().all(objects_pb2.Task).values())
