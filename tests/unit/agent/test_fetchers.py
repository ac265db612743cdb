"""Who gets blobs from a node: what the control plane said last is kept for a while, and for longer while it is away."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from agent.errors import Temporary
from agent.fetchers import MAX_KNOWN, Fetchers
from agent.letin import KEPT_MS
from agent.members import Members
from controlplane.core.trust import etcd_flags
from controlplane.trust import founding
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support.aio import bounded
from trust.folder import Folder

BLOB = f"sha256:{'a' * 64}"
Said = Mapping[str, Sequence[bytes]]


class Control:
    """The control plane, as a node asks it."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.refusal = ""
        self.away = False
        self.asked: list[tuple[str, str]] = []

    async def may_fetch(self, node_id: str, digest: str) -> str:
        self.asked.append((node_id, digest))
        if self.away:
            raise Temporary("no control plane answers", reason="NoControlPlane")
        return self.refusal

    def fetchers(self) -> Fetchers:
        network = wire.NodeNetwork(peers=[wire.NetworkPeer(node_id="n1", trusted_since=1)])
        return Fetchers(self.may_fetch, Members(lambda: network), lambda: self.now_ms)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates of a cluster: `n1` is a node, `cp` an instance."""
    path = tmp_path_factory.mktemp("trust")
    member = etcd_flags.at_host("cp1", etcd_flags.LOOPBACK)
    instance = founding.Instance(name="cp1", folder=Folder(path / "cp"), member=member)
    node = founding.Node(id="n1", name="web", folder=Folder(path / "n1"))
    plan = founding.Plan(instances=[instance], admin="root", admins=Folder(path / "admin"), nodes=[node])
    founding.found(plan, 1_700_000_000_000)
    return path


def said_by(folder: Path, name: str) -> Said:
    """What gRPC says of a connection of theirs."""
    return {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [Folder(folder / name).load().chain]}


@bounded(10)
async def test_a_yes_is_kept_for_a_while_and_then_asked_for_again(folder: Path) -> None:
    """A node that has lost its tasks is told so then."""
    control = Control()
    fetchers, node = control.fetchers(), said_by(folder, "n1")
    assert await fetchers.refusal(node, BLOB) == ""
    control.refusal = "no task of the node n1 needs it"
    control.now_ms = KEPT_MS - 1
    assert await fetchers.refusal(node, BLOB) == ""
    assert control.asked == [("n1", BLOB)]
    control.now_ms = KEPT_MS
    assert await fetchers.refusal(node, BLOB) == control.refusal
    control.away = True
    assert "nobody can say now" in await fetchers.refusal(node, BLOB), "a no is the end of what was said before"


@bounded(10)
async def test_a_no_is_asked_about_each_time(folder: Path) -> None:
    """The task may have come a moment ago."""
    control = Control()
    control.refusal = "no task of the node n1 needs it"
    fetchers, node = control.fetchers(), said_by(folder, "n1")
    assert await fetchers.refusal(node, BLOB) == control.refusal
    control.refusal = ""
    assert await fetchers.refusal(node, BLOB) == ""


@bounded(10)
async def test_while_the_control_plane_is_away_what_it_said_last_holds(folder: Path) -> None:
    control = Control()
    fetchers, node = control.fetchers(), said_by(folder, "n1")
    assert await fetchers.refusal(node, BLOB) == ""
    control.away, control.now_ms = True, 10 * KEPT_MS
    assert await fetchers.refusal(node, BLOB) == ""
    other = BLOB.replace("a", "b")
    assert "nobody can say now whether node n1 may have it" in await fetchers.refusal(node, other)


@bounded(10)
async def test_control_planes_have_everything(folder: Path) -> None:
    control = Control()
    control.refusal = "no"
    assert await control.fetchers().refusal(said_by(folder, "cp"), BLOB) == ""
    assert control.asked == []


@bounded(60)
async def test_what_is_kept_is_bounded(folder: Path) -> None:
    control = Control()
    fetchers, node = control.fetchers(), said_by(folder, "n1")
    for number in range(MAX_KNOWN + 1):
        assert await fetchers.refusal(node, f"sha256:{number:064}") == ""
    control.away = True
    assert await fetchers.refusal(node, f"sha256:{1:064}") == ""
    assert await fetchers.refusal(node, f"sha256:{0:064}") != ""
