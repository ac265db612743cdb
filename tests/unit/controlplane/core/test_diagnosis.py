"""What is to be thought of a cluster, from what its parts say."""

import dataclasses

import pytest

from controlplane.core import diagnosis
from controlplane.core.diagnosis import Instance
from controlplane.store.condition import Member
from protos import findings
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from protos.orch.v1 import trust_pb2
from trust import errands
from trust.core import lifetime

GIB = 1 << 30
WELL = Member(
    address="a:1", version="3.4.23", has_leader=True, is_leader=True, index=9_000, size_bytes=GIB, used_bytes=5
)
DOWN = Member(address="b:1", problem="connection refused")


def words(found: list[api.Finding]) -> dict[str, str]:
    """The verdict of each check; the worst, when it was made more than once."""
    ordered = sorted(found, key=lambda one: one.verdict)
    return {f"{one.place} {one.check}": findings.word(one) for one in ordered}


@pytest.mark.parametrize(
    ("members", "verdict", "said"),
    [
        ([WELL], "ok", "the only member answers"),
        ([WELL] * 3, "ok", "1 may fail"),
        ([WELL] * 5, "ok", "2 may fail"),
        ([WELL] * 2, "warning", "an even number"),
        ([WELL, WELL, DOWN], "warning", "0 more may fail"),
        ([WELL, DOWN, DOWN], "failed", "1 of 3 members answer, and 2 are needed"),
        ([dataclasses.replace(WELL, has_leader=False)], "failed", "nothing can be changed"),
        ([DOWN], "failed", "0 of 1"),
    ],
)
def test_a_quorum_is_told_with_what_may_still_fail(members: list[Member], verdict: str, said: str) -> None:
    (quorum,) = (one for one in diagnosis.etcd(members) if one.check == "quorum")
    assert (findings.word(quorum), said in quorum.message) == (verdict, True), quorum


@pytest.mark.parametrize(
    ("member", "check", "verdict"),
    [
        (WELL, "member", "ok"),
        (DOWN, "member", "failed"),
        (dataclasses.replace(DOWN, problem="Hostname Verification Check failed"), "certificate", "failed"),
        (dataclasses.replace(WELL, index=10), "member", "warning"),
        (dataclasses.replace(WELL, errors=("NOSPACE",)), "member", "failed"),
        (dataclasses.replace(WELL, version="3.5.1"), "version", "failed"),
        (dataclasses.replace(WELL, version="3.5.16"), "version", "ok"),
        (dataclasses.replace(WELL, version="3.3.25"), "version", "warning"),
        (dataclasses.replace(WELL, size_bytes=GIB + GIB // 2), "database", "warning"),
        (dataclasses.replace(WELL, size_bytes=2 * GIB - 1000), "database", "failed"),
    ],
)
def test_each_member_of_etcd_is_looked_at(member: Member, check: str, verdict: str) -> None:
    """Beside one that is well: what one lacks is seen by the other's progress."""
    mine = dataclasses.replace(member, address="x:1")
    found = words([one for one in diagnosis.etcd([mine, WELL]) if one.place == "etcd x:1"])
    assert found[f"etcd x:1 {check}"] == verdict


def test_an_alarm_of_etcd_is_a_failure_of_all() -> None:
    found = diagnosis.etcd([dataclasses.replace(WELL, alarms=("NOSPACE",))])
    assert words(found)["etcd alarms"] == "failed"


def test_instances_are_compared_with_the_one_that_is_asked() -> None:
    well = Instance(name="cp2", version="1.0", ahead_ms=20, uncertain_ms=30)
    cases = {
        "ok": (well, {"instance": "ok", "version": "ok", "clock": "ok"}),
        "silent": (Instance(name="cp2", problem="refused"), {"instance": "failed"}),
        "storeless": (dataclasses.replace(well, store_problem="no answer for 9 s"), {"instance": "failed"}),
        "older": (dataclasses.replace(well, version="0.9"), {"version": "warning"}),
        "ahead": (dataclasses.replace(well, ahead_ms=5_000), {"clock": "warning"}),
        "far": (dataclasses.replace(well, ahead_ms=-400_000), {"clock": "failed"}),
        "slow": (dataclasses.replace(well, ahead_ms=1_500, uncertain_ms=1_000), {"clock": "ok"}),
        "itself": (Instance(name="cp2", version="1.0"), {"instance": "ok", "version": "ok"}),
    }
    for name, (one, expected) in cases.items():
        found = words(diagnosis.instance(one, "1.0"))
        assert {key: found[f"cp2 {key}"] for key in expected} == expected, name
    assert "cp2 clock" not in words(diagnosis.instance(cases["itself"][0], "1.0"))


def test_a_node_without_a_session_has_failed() -> None:
    node = pb.Node(meta=pb.Meta(name="n1"), status=pb.NodeStatus(state=pb.NODE_STATE_READY))
    node.status.description.agent_version = "1.0"
    assert words(diagnosis.node(node, "1.0")) == {"n1 node": "ok", "n1 version": "ok"}
    assert words(diagnosis.node(node, "1.1"))["n1 version"] == "warning"
    for state in (pb.NODE_STATE_DISCONNECTED, pb.NODE_STATE_DOWN):
        node.status.state = state
        assert words(diagnosis.node(node, "1.0")) == {"n1 node": "failed"}
    node.status.held = True
    (found,) = diagnosis.node(node, "1.0")
    assert "none of its tasks is replaced" in found.message
    assert "`orchctl node lost n1`" in found.remedy
    node.status.held = False
    node.status.state, node.status.expected_by = pb.NODE_STATE_DISCONNECTED, 1
    assert words(diagnosis.node(node, "1.0")) == {"n1 node": "warning"}, "it is being restarted"


def test_broken_ways_are_told_once_for_all_targets_and_work_that_is_well_is_counted() -> None:
    ways = [
        api.NetworkFinding(source="n1", target=f"n{number}", what="packets of 1450 bytes") for number in range(2, 10)
    ]
    found = diagnosis.network(ways)
    assert [(one.place, one.message) for one in found] == [("n1", "8 ways to nodes, names and services work")]
    for way in ways:
        way.problem = "no answer"
    (broken,) = diagnosis.network(
        [*ways, api.NetworkFinding(source="n1", target="n1", what="its agent", problem="gone")]
    )
    assert broken.message == "to n2, n3, n4, n5, n6 and 3 more: packets of 1450 bytes: no answer"
    assert "--network-mtu" in broken.remedy


def test_certificates_that_run_out_are_named_and_people_s_are_their_own() -> None:
    now, day = 1_000 * lifetime.DAY_MS, lifetime.DAY_MS

    def member(name: str, role: str, until: int) -> trust_pb2.MemberRecord:
        keys = [trust_pb2.MemberKey(expires_at=until), trust_pb2.MemberKey(expires_at=until - 50 * day)]
        return trust_pb2.MemberRecord(name=f"{role}:{name}", role=role, keys=keys)

    well = [member("n1", "node", now + 40 * day), member("ann", "viewer", now - day)]
    assert words(diagnosis.certificates(well, {"ab": now + 3000 * day}, now)) == {" certificates": "ok", " root": "ok"}
    found = diagnosis.certificates(
        [*well, member("n2", "node", now - 1), member("cp1", "controlplane", now + 5 * day)], {"ab": now + day}, now
    )
    assert [findings.word(one) for one in found] == ["failed", "warning", "warning"]
    assert "expired: node n2;" in found[0].message
    assert "controlplane cp1" in found[1].message
    assert "rotate-ca" in found[2].remedy


def test_an_exchange_of_the_store_s_root_is_told_with_whom_it_waits_for() -> None:
    """And nothing is, while there is none."""
    assert diagnosis.exchange(trust_pb2.TrustRecord(cluster="c"), [], 0) == []
    root = errands.root("c", "store", b"s" * 32, 0)
    trust = trust_pb2.TrustRecord(
        store_root=trust_pb2.RootRecord(certificate=root.certificate),
        store_rotation=trust_pb2.ROTATION_PHASE_DROPPING,
    )
    late = trust_pb2.MemberRecord(
        name="controlplane:cp1", role="controlplane", store=trust_pb2.StoreStanding(problem="restart orch-etcd there")
    )
    (found,) = diagnosis.exchange(trust, [late], 0)
    assert findings.word(found) == "warning"
    assert found.message == "it is being exchanged, and waits for controlplane:cp1: restart orch-etcd there"
    assert "--status" in found.remedy
