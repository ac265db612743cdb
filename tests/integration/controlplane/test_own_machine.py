"""What an instance finds on its own machine, and that the doctor passes it on, of itself and of the others."""

import asyncio
import socket
from collections.abc import Iterable
from pathlib import Path

import grpc
import pytest

from controlplane.api import own_machine
from controlplane.api.own_machine import OwnMachine
from controlplane.store import errors
from protos import findings
from protos.orch.v1 import control_pb2 as pb
from tests.support import aio, scraping, trusted
from trust.core import certificate, lifetime
from trust.folder import Folder


def told(found: Iterable[pb.Finding], check: str) -> list[tuple[str, str]]:
    return [(findings.word(one), one.message) for one in found if one.check == check]


@aio.bounded(30)
async def test_a_way_that_is_closed_is_found_by_trying(tmp_path: Path) -> None:
    """One where nobody listens, and one where nobody answers."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    silent: tuple[str, int] = full.getsockname()
    waiting = [socket.socket() for _ in range(4)]
    with full, socket.create_server(("127.0.0.1", 0)) as well:
        for one in waiting:  # the kernel answers nobody more once its queue is full
            one.setblocking(False)
            one.connect_ex(silent)
        open_port = well.getsockname()[1]
        addresses = [f"127.0.0.1:{port}" for port in (open_port, silent[1], 1)]

        async def others() -> Iterable[str]:
            return addresses

        found = await OwnMachine(folder=tmp_path / "not" / "yet", now_ms=lambda: 0, others=others).look()
    for one in waiting:
        one.close()
    assert told(found, "port 1/tcp") == [("failed", "nothing is reached at 127.0.0.1:1 from here: Connection refused")]
    ((verdict, message),) = told(found, f"port {silent[1]}/tcp")
    assert (verdict, "no answer within 2 s" in message) == ("failed", True)
    assert not told(found, f"port {open_port}/tcp")
    ((verdict, message),) = told(found, "disk")
    assert str(tmp_path / "not" / "yet") in message


@aio.bounded(30)
async def test_a_store_that_does_not_answer_leaves_the_rest_to_be_looked_at(tmp_path: Path) -> None:
    async def others() -> Iterable[str]:
        raise errors.Unavailable("etcd does not answer")

    found = await OwnMachine(folder=tmp_path, now_ms=lambda: 0, others=others).look()
    assert told(found, "disk")
    assert not [one for one in found if one.check.startswith("port")]


def test_a_clock_that_may_not_be_asked_for_has_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's, for one."""

    def forbidden() -> bool:
        raise PermissionError("adjtimex")

    monkeypatch.setattr(own_machine.clock, "is_kept", forbidden)
    found = asyncio.run(OwnMachine(folder=tmp_path, now_ms=lambda: 0).look())
    assert [one.check for one in found] == ["disk"]


@aio.bounded(60)
async def test_the_doctor_tells_of_each_control_plane_s_machine(tmp_path: Path) -> None:
    """With its certificates for the store, whose end the metrics tell, too. Nobody but an instance may ask directly."""
    async with trusted.cluster(tmp_path) as made:
        member = certificate.read((tmp_path / "cp" / "etcd" / "cert.pem").read_bytes())
        async with made.control(made.admin) as stub:
            found = [
                one
                async for part in stub.Diagnose(pb.DiagnoseRequest(without_network=True))
                for one in part.findings
                if one.place == "cp1"
            ]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Examine(pb.ExamineRequest())
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert told(found, "disk")
        assert told(found, "store certificate") == [
            ("ok", "that of the instance for the store is good for 364 days"),
            ("ok", "that of the member of etcd for the store is good for 364 days"),
        ]
        other = await made.join("cp2", made.tokens["controlplane_token"])
        made.ahead_ms = 320 * lifetime.DAY_MS
        async with made.control(other) as stub:
            late = (await stub.Examine(pb.ExamineRequest())).findings
        assert [verdict for verdict, _ in told(late, "store certificate")] == ["warning", "warning"]
        async with scraping.reader("127.0.0.1", made.metrics_port, Folder(tmp_path / "admin")) as reader:
            _, said = await reader.ask()
        values = scraping.values(said)
        name = "orch_store_certificate_expiry_timestamp_seconds"
        assert values[f'{name}{{of="member"}}'] == member.not_after_ms / 1000
        assert f'{name}{{of="instance"}}' in values
