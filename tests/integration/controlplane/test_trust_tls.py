"""What is spoken at the ports of a control plane, to whom, and what nobody can ask for."""

from pathlib import Path

import grpc
import grpc.aio
import pytest

from agent.rpc import Server
from protos.link import LinkLost
from protos.orch.v1 import control_pb2 as pb
from tests.support import aio, trusted
from tests.support.handshakes import handshake
from trust.folder import Folder, Material


@aio.bounded(60)
async def test_nothing_older_than_tls_1_3_is_spoken(tmp_path: Path) -> None:
    """Openssl is the judge, at the control plane's port and at the door."""
    async with trusted.cluster(tmp_path) as made:
        for address in (made.address, made.door):
            older, _ = await handshake(address, "-tls1_2")
            newer, said = await handshake(address, "-tls1_3", "-CAfile", str(tmp_path / "cp" / "roots.pem"))
            assert older != 0
            assert "Verify return code: 0 (ok)" in said
            assert newer in {0, 1}, "without a certificate the control plane hangs up afterwards"


@aio.bounded(60)
async def test_who_shows_no_certificate_or_another_cluster_s_gets_no_answer(tmp_path: Path) -> None:
    """It ends in the handshake: no handler is reached."""
    async with trusted.cluster(tmp_path) as made:
        trusted.found(tmp_path / "other")
        stranger = Folder(tmp_path / "other" / "admin").load()
        mixed = Material(key=stranger.key, chain=stranger.chain, roots=made.admin.roots, facts=stranger.facts)
        nobody = grpc.ssl_channel_credentials(made.admin.roots)
        options = (("grpc.ssl_target_name_override", "controlplane.orch"),)
        for channel in (
            grpc.aio.insecure_channel(made.address),
            grpc.aio.secure_channel(made.address, nobody, options=options),
        ):
            async with channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await channel.unary_unary("/orch.v1.Control/Version")(b"", timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        async with made.control(mixed) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Version(pb.VersionRequest(), timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@aio.bounded(60)
async def test_a_node_that_stands_up_as_a_control_plane_is_not_believed(tmp_path: Path) -> None:
    """Its certificate is for a server, but has not the name that is asked for."""
    async with trusted.cluster(tmp_path) as made:
        node = await made.join("n1")
        impostor = grpc.aio.server()
        configured = grpc.ssl_server_credentials([(node.key, node.chain)])
        port = impostor.add_secure_port("127.0.0.1:0", configured)
        await impostor.start()
        try:
            made.address = f"127.0.0.1:{port}"
            async with made.control(made.admin) as stub:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Version(pb.VersionRequest(), timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            await impostor.stop(0)


@aio.bounded(60)
async def test_members_and_tokens_are_in_no_list_of_objects(tmp_path: Path) -> None:
    """Nor can anybody ask for them by a kind's name."""
    async with trusted.cluster(tmp_path) as made, made.control(made.admin) as stub:
        for kind in ("trust", "member", "token"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.List(pb.ListRequest(kind=kind))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@aio.bounded(60)
async def test_an_agent_tells_another_cluster_s_server_in_words(tmp_path: Path) -> None:
    """Not in those of a TLS library."""
    trusted.found(tmp_path / "other")
    stranger = Folder(tmp_path / "other" / "admin").load()
    async with trusted.cluster(tmp_path) as made:
        server = Server("n1", stranger)
        try:
            link = await server.connect(made.address)
            with pytest.raises(LinkLost, match="no control plane of the cluster that this node has joined"):
                await link.receive()
            await link.close()
        finally:
            await server.close()
