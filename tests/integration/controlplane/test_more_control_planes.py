"""Control planes that join and leave, with their members of etcd: by the commands that people type, as processes."""

import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from controlplane import main
from controlplane.store import api
from controlplane.store.etcd import EtcdStore
from controlplane.trust.memberkeeper import MemberKeeper
from controlplane.trust.standing import standing, store_credentials
from tests.support import aio, machines_of_control
from tests.support.aio import bounded
from tests.support.machines_of_control import Estate, members
from tests.support.waiting import until
from trust.core import certificate
from trust.folder import Folder

pytestmark = pytest.mark.etcd


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    with machines_of_control.estate(tmp_path) as made:
        yield made


def test_three_control_planes_become_one_cluster_and_two_again(estate: Estate) -> None:
    """Each joins by one command, its member of etcd with it; one that is taken out is out, and ends by itself."""
    first, second, third = (estate.machine(name) for name in ("cp1", "cp2", "cp3"))
    tokens = estate.found(first)
    first.start()
    estate.until_leads(first)
    for joiner in (second, third):
        said = estate.join(joiner, first, tokens["controlplane"])
        assert f"orch-etcd --trust {joiner.trust}" in said
        joiner.start()
        estate.until_leads(first, joiner)
        until(lambda: (joiner.name, False) in members(first), what=f"{joiner.name} counts", timeout_s=30)  # noqa: B023
    assert members(third) == [("cp1", False), ("cp2", False), ("cp3", False)]
    estate.orchctl("get", "nodes")
    known = (estate.folder / "config.yaml").read_text()
    assert all(machine.server in known for machine in (first, second, third))
    until(lambda: third.host in (first.trust / "store.json").read_text(), what="the first knows where the store is")

    leader = estate.until_leads(first, second, third)
    (machine,) = (one for one in (first, second, third) if one.name == leader)
    until(lambda: not machines_of_control.leads_store(machine), what="the store is led elsewhere", timeout_s=30)

    doctor = json.loads(estate.orchctl("cluster", "doctor", "-o", "json"))
    looked_at = {(one["place"], one["check"], one["verdict"]) for one in doctor}
    for name in ("cp1", "cp2", "cp3"):
        assert {(name, "ports", "ok"), (name, "store certificate", "ok")} <= looked_at
        assert {check for place, check, _ in looked_at if place == name} >= {"disk", "timekeeping"}

    first.stop()
    assert estate.until_leads(second, third) in {"cp2", "cp3"}
    estate.orchctl("get", "nodes")
    estate.orchctl("cluster", "token", "ls")
    first.start()
    estate.until_leads(first, second, third)

    estate.orchctl("cluster", "member", "revoke", "controlplane:cp3")
    assert members(first) == [("cp1", False), ("cp2", False)]
    until(lambda: third.ended("instance") == 1, what="the one that is out ends", timeout_s=30)
    assert "taken out of this cluster" in third.log("instance")
    until(lambda: third.ended("etcd") is not None, what="its etcd ends", timeout_s=30)
    estate.until_leads(first, second)


def test_a_join_that_did_not_come_to_its_end_is_gone_on_with(estate: Estate) -> None:
    """The member that was taken in waits as a learner, which costs nobody a quorum: the same command again, or out."""
    first, second, third = (estate.machine(name) for name in ("cp1", "cp2", "cp3"))
    tokens = estate.found(first)
    first.start()
    estate.until_leads(first)
    estate.join(second, first, tokens["controlplane"])
    pending = (second.trust / "identity.pem").read_text().partition("-----END PRIVATE KEY-----\n")
    (second.trust / "identity.pem").unlink()  # as if the answer had been lost
    (second.trust / "pending.pem").write_text(pending[0] + pending[1])
    (second.trust / "pending.pem").chmod(0o600)
    assert members(first) == [("", True), ("cp1", False)]
    refused = estate.join(third, first, tokens["controlplane"], code=1)
    assert "one member of etcd joins at a time" in refused
    assert "take it out" in refused
    estate.join(second, first, tokens["controlplane"])
    assert members(first) == [("", True), ("cp1", False)]
    second.start()
    until(lambda: members(first) == [("cp1", False), ("cp2", False)], what="it counts", timeout_s=30)
    estate.until_leads(first, second)
    estate.join(third, first, tokens["controlplane"])
    estate.orchctl("cluster", "member", "revoke", "controlplane:cp3")
    assert members(first) == [("cp1", False), ("cp2", False)]
    refused = estate.orchctl("cluster", "member", "revoke", "controlplane:cp9", code=1)
    assert "there is no member" in refused


def test_the_only_control_plane_is_not_taken_out(estate: Estate) -> None:
    """The whole cluster would go with it."""
    first = estate.machine("cp1")
    estate.found(first)
    first.start()
    estate.until_leads(first)
    refused = estate.orchctl("cluster", "member", "revoke", "controlplane:cp1", code=1)
    assert "the whole cluster is in it" in refused
    assert estate.until_leads(first) == "cp1"
    first.stop(signal.SIGTERM)


@bounded(60)
async def test_the_store_s_certificates_are_renewed_while_it_serves(estate: Estate) -> None:
    """etcd shows the new one at the next handshake, without a restart; what is open goes on, what begins is let in."""
    machine = estate.machine("cp1")
    estate.found(machine)
    machine.start_etcd()
    folder = Folder(machine.trust)
    home = f"{machine.host}:2379"
    store = EtcdStore([home], credentials=store_credentials(folder), home=home)
    audit, chance = machine.folder / "audit.log", random.Random(1)
    async with (
        _closing(store),
        standing(folder, store, members=store.members, audit=audit, now_ms=main.now_ms, chance=chance) as mine,
    ):
        await aio.until(lambda: bool(mine.registry.members), what="it is founded", timeout_s=40)
        mine.on_store_renewed = MemberKeeper(store, folder, lambda: False).renewed
        before, own = machines_of_control.shown_by_store(machine), (machine.trust / "store.pem").read_bytes()
        await mine.renew_store()
        after = machines_of_control.shown_by_store(machine)
        assert certificate.of_der(after).serial != certificate.of_der(before).serial
        assert certificate.of_der(after).key_digest == certificate.of_der(before).key_digest
        assert (machine.trust / "store.pem").read_bytes() != own
        await store.commit([api.Put(key="/orch-test/one", value=b"1")])
        await mine.renew_store()
        await mine.membership.publish(mine.own.identity, "10.0.0.1:7400")
        assert list(mine.registry.instances) == ["10.0.0.1:7400"], "the watch goes on when its link is closed"


def test_each_member_of_the_store_has_a_certificate_of_its_own(estate: Estate) -> None:
    """With its name and its addresses, for a year."""
    first = estate.machine("cp1")
    estate.found(first)
    facts = certificate.read((first.trust / "etcd" / "cert.pem").read_bytes())
    assert facts.identity.name == "cp1"
    assert 364 * 86_400_000 < facts.not_after_ms - facts.not_before_ms < 367 * 86_400_000
    assert (first.trust / "etcd" / "key.pem").stat().st_mode & 0o77 == 0


@contextlib.asynccontextmanager
async def _closing(store: EtcdStore) -> AsyncIterator[EtcdStore]:
    try:
        yield store
    finally:
        await store.close()
