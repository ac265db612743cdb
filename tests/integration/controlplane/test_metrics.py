"""What Prometheus reads of an instance, and who else does."""

import asyncio
import ssl
from pathlib import Path

import pytest

from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import trust_pb2 as tpb
from telemetry import page
from tests.support import aio, etcd, scraping, trusted, trusted_process
from trust.core.identity import Role
from trust.folder import Folder

pytestmark = pytest.mark.etcd


@aio.bounded(120)
async def test_a_process_tells_of_its_calls_its_store_and_its_cluster(tmp_path: Path) -> None:
    """And promtool, which is Prometheus' own judge of names and format, has nothing to say against it."""
    trusted.found(tmp_path)
    (tmp_path / "cp").rename(tmp_path / "cp1")
    with (
        etcd.running(tmp_path / "cp1") as member,
        trusted_process.instance(tmp_path, "cp1", [member]) as process,
    ):
        own = Folder(tmp_path / "admin")
        await asyncio.to_thread(trusted_process.leader, process, own.load(Role.ADMIN))
        host, _, port = process.metrics.partition(":")
        async with scraping.reader(host, int(port), own) as reader:
            status, said = await reader.ask()
        assert status == 200
        assert not scraping.problems(said)
        found = scraping.values(said)
        assert found['orch_rpc_total{code="OK",method="orch.v1.Control/Version"}'] >= 1
        assert found['orch_rpc_seconds_count{code="OK",method="orch.v1.Control/Version"}'] >= 1
        assert found['orch_store_request_seconds_count{operation="commit",outcome="ok"}'] >= 1
        assert found[f'orch_etcd_up{{member="{member.endpoint}"}}'] == 1
        assert found[f'orch_etcd_has_leader{{member="{member.endpoint}"}}'] == 1
        assert found[f'orch_etcd_size_bytes{{member="{member.endpoint}"}}'] > 1000
        assert found["orch_leader"] == 1
        assert found["orch_leader_terms_total"] == 1
        assert found['orch_tasks{state="running"}'] == 0
        assert found["orch_cache_stale_seconds"] == 0
        assert found["process_resident_memory_bytes"] > 1 << 20
        member.kill()
        async with scraping.reader(host, int(port), own) as reader:
            _, said = await reader.ask()
        found = scraping.values(said)
        assert found[f'orch_etcd_up{{member="{member.endpoint}"}}'] == 0
        assert found["orch_cache_stale_seconds"] >= 0


@aio.bounded(60)
async def test_people_read_and_machines_and_those_bound_to_a_namespace_do_not(tmp_path: Path) -> None:
    async with trusted.cluster(tmp_path) as made:
        for name, role, bound in (("ann", "viewer", ()), ("bob", "viewer", ("shop",)), ("eve", "admin", ())):
            await made.person(name, role, *bound)
        await made.join("n1")
        answers = {}
        for name in ("ann", "bob", "eve", "n1"):
            async with scraping.reader("127.0.0.1", made.metrics_port, Folder(tmp_path / name)) as reader:
                answers[name] = await reader.ask()
        assert {name: status for name, (status, _) in answers.items()} == {
            "ann": 200,
            "bob": 403,
            "eve": 200,
            "n1": 403,
        }
        assert "viewer bob may not call metrics in all namespaces at once" in answers["bob"][1]
        assert "node n1 may not call metrics; admin, editor or viewer may" in answers["n1"][1]


@aio.bounded(60)
async def test_who_is_put_out_reads_nothing_more_on_the_connection_that_they_have(tmp_path: Path) -> None:
    async with trusted.cluster(tmp_path) as made:
        await made.person("ann", "viewer")
        async with scraping.reader("127.0.0.1", made.metrics_port, Folder(tmp_path / "ann")) as reader:
            assert (await reader.ask())[0] == 200
            async with made.trust(made.admin) as stub:
                await stub.RevokeMember(tpb.RevokeMemberRequest(name="person:ann"))
            status, said = await reader.ask()
        assert status == 403
        assert "was removed from this cluster" in said


@aio.bounded(60)
async def test_strangers_and_older_tls_end_in_the_handshake(tmp_path: Path) -> None:
    async with trusted.cluster(tmp_path) as made:
        trusted.found(tmp_path / "other")
        nobody = ssl.create_default_context(cafile=str(tmp_path / "cp" / "roots.pem"))
        stranger = scraping.context(Folder(tmp_path / "other" / "admin"))
        stranger.load_verify_locations(tmp_path / "cp" / "roots.pem")
        older = scraping.context(Folder(tmp_path / "admin"))
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        for context in (nobody, stranger, older):
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await scraping.ask_with(context, "127.0.0.1", made.metrics_port)


@aio.bounded(60)
async def test_a_certificate_that_was_renewed_is_shown_from_the_next_connection_on(tmp_path: Path) -> None:
    async with trusted.cluster(tmp_path) as made:
        shown = []
        for _ in range(2):
            async with scraping.reader("127.0.0.1", made.metrics_port, Folder(tmp_path / "admin")) as reader:
                shown.append(reader.streams[1].get_extra_info("ssl_object").getpeercert()["serialNumber"])
                assert (await reader.ask())[0] == 200
            await made.standing.renew()
        assert shown[0] != shown[1]


def let_everybody_in(folder: Path) -> page.Guard:
    """Who has a certificate of a cluster that is founded there."""
    trusted.found(folder)
    shown = Folder(folder / "cp")
    own = shown.load(Role.CONTROLPLANE)

    async def refusal(_pem: str) -> str:
        return ""

    return page.Guard(folder=shown, current=lambda: own, refusal=refusal)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /metrics HTTP/1.1\r\n\r\n", 200),
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\n\r\n", 404),
        ("GET /metrics/../etc HTTP/1.1\r\n\r\n", 404),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("hello\r\n\r\n", 400),
        ("GET /metrics SPDY/3\r\n\r\n", 400),
        ("\xff\xfe\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nX: " + "y" * page.MAX_HEAD_BYTES + "\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_gets_one_line(head: str, status: int, tmp_path: Path) -> None:
    """And the page is there for the next one."""

    @aio.bounded(30)
    async def scenario() -> None:
        async def render(_accept: str) -> tuple[str, bytes]:
            return "text/plain", b"orch_up 1\n"

        async with page.serving([("127.0.0.1", 0)], render, let_everybody_in(tmp_path)) as (port,):
            for sent, expected in ((head, status), ("GET /metrics HTTP/1.1\r\n\r\n", 200)):
                async with scraping.reader("127.0.0.1", port, Folder(tmp_path / "admin")) as reader:
                    found, said = await reader.ask(sent)
                    assert found == expected
                    assert said.count("\n") == 1

    scenario()


@aio.bounded(30)
async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    async def render(_accept: str) -> tuple[str, bytes]:
        return "text/plain", b""

    guard = let_everybody_in(tmp_path)
    async with page.serving([("127.0.0.1", 0)], render, guard) as (port,):
        with pytest.raises(page.CannotServe, match=f"port {port}: .* in use; give another"):
            async with page.serving([("127.0.0.1", port)], render, guard):
                pytest.fail("two serve at one port")


@aio.bounded(60)
async def test_refusals_are_counted_with_their_code(tmp_path: Path) -> None:
    """By method, and no method that nobody serves has a counter."""
    async with trusted.cluster(tmp_path) as made:
        viewer = await made.person("ann", "viewer")
        async with made.control(viewer) as stub:
            for _ in range(3):
                with pytest.raises(Exception, match="may not call"):
                    await stub.Apply(pb.ApplyRequest())
        async with made.channel(viewer) as channel:
            with pytest.raises(Exception, match="UNIMPLEMENTED"):
                await channel.unary_unary("/orch.v1.Control/Invented")(b"", timeout=5)
        async with scraping.reader("127.0.0.1", made.metrics_port, Folder(tmp_path / "ann")) as reader:
            _, said = await reader.ask()
        found = scraping.values(said)
        assert found['orch_rpc_total{code="PERMISSION_DENIED",method="orch.v1.Control/Apply"}'] >= 3
        assert not [name for name in found if "Invented" in name]
