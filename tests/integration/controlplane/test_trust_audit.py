"""The audit log of a control plane: calls of every shape name what they are about, and so does the door."""

import json
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.trust import audit
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2, trust_pb2
from tests.support import aio, trusted
from trust import joining

TIMEOUT_S = 20.0


def told(made: trusted.Cluster, call: str) -> list[dict[str, object]]:
    """The lines of one call, without their times."""
    path = made.folder / "audit.log"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in one.items() if key != "at"} for one in lines if one["call"] == call]


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
    container = objects_pb2.Container(image="hello", command=["/serve"])
    spec = objects_pb2.ServiceSpec(replicas=0, template=objects_pb2.TaskTemplate(container=container))
    service = objects_pb2.Service(meta=objects_pb2.Meta(name="web", namespace="shop"), spec=spec)
    wanted = [objects_pb2.Object(service=service)]
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
            (line,) = told(made, "Diagnose")
            assert (line["who"], line["refused"]) == ("root", audit.BROKEN_OFF)


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

        await aio.until(lambda: not made.standing.book._waiting, what="the store has all", timeout_s=TIMEOUT_S)
        entries = (await admin.ListAudit(trust_pb2.ListAuditRequest())).entries
        assert [one.who for one in entries if one.call == "Join"] == ["n1", "vic", "127.0.0.1"]
