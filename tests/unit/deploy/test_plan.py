"""Where a local cluster puts itself."""

from pathlib import Path, PurePath

import pytest

from agent.core import users
from controlplane.core.trust import etcd_flags
from deploy.local import claims, errors, plan


@pytest.mark.parametrize(
    ("taken", "lan"),
    [
        ([], "10.111.0.0/24"),
        (["192.0.2.2/24", "0.0.0.0/0", "fd00::1/64"], "10.111.0.0/24"),
        (["10.111.0.254/24"], "10.121.0.0/24"),
        (["10.112.7.0/24"], "10.121.0.0/24"),
        (["10.113.7.0/24"], "10.121.0.0/24"),
        (["10.96.0.0/11"], "10.131.0.0/24"),
        (["10.111.0.254/24", "10.112.1.0/24", "10.121.0.254/24"], "10.131.0.0/24"),
    ],
)
def test_a_lan_overlaps_with_nothing_that_the_host_reaches(taken: list[str], lan: str) -> None:
    """Neither the machines' network nor the range of tasks or services may hide something of the person's."""
    assert next(plan.lans(taken)).network == lan


def test_a_host_without_room_is_told_so(tmp_path: Path) -> None:
    """Rather than breaking its routes."""
    with pytest.raises(errors.LocalError, match="no free range") as refusal:
        claims.lan(["10.0.0.0/8"], "test", tmp_path)
    assert "cluster down" in refusal.value.hint


def test_the_largest_cluster_leaves_the_host_its_address() -> None:
    """Addresses of nodes, bridge and host never meet."""
    lan = next(plan.lans([]))
    nodes = {lan.node(number) for number in range(1, plan.MAX_NODES + 1)}
    assert len(nodes) == plan.MAX_NODES
    assert not nodes & {lan.server, lan.host}


def test_no_process_of_the_cluster_listens_on_the_host() -> None:
    """etcd is on a loopback of its own, the control plane on the LAN's bridge."""
    a_plan = plan.Plan(name="t", folder="/f", nodes=1, lan=next(plan.lans([])), config="/c")
    assert a_plan.server == "10.111.0.1:7400"
    assert not [word for word in plan.control_plane_command(a_plan) if "0.0.0.0" in word]
    assert "--listen-client-urls=https://127.0.0.1:2379" in etcd(a_plan)


def test_every_process_is_told_where_its_certificates_are() -> None:
    """One that is not would speak in the clear."""
    a_plan = plan.Plan(name="t", folder="/f", nodes=2, lan=next(plan.lans([])), config="/c")
    assert "--trust /f/cp1/trust --door 10.111.0.1:7401" in " ".join(plan.control_plane_command(a_plan))
    assert "--trust /f/n2/trust" in " ".join(plan.machine_command(a_plan, "n2"))
    assert plan.etcd_command(a_plan)[3:5] == ["--trust", "/f/cp1/trust"]
    flags = etcd(a_plan)
    assert {"--client-cert-auth", "--peer-client-cert-auth", "--key-file=/f/cp1/trust/etcd/key.pem"} <= set(flags)
    assert not [word for word in (*flags, *plan.control_plane_command(a_plan)) if "http:" in word]


def test_several_control_planes_have_addresses_and_members_of_their_own() -> None:
    """Each knows the others' members, and agents know all."""
    a_plan = plan.Plan(name="t", folder="/f", nodes=1, lan=next(plan.lans([])), config="/c", control_planes=3)
    assert a_plan.servers == ("10.111.0.1:7400", "10.111.0.2:7400", "10.111.0.3:7400")
    flags = etcd(a_plan, "cp2")
    peers = ",".join(f"cp{number}=https://10.111.0.{number}:2380" for number in (1, 2, 3))
    assert {f"--initial-cluster={peers}", "--name=cp2", "--initial-cluster-state=new"} <= set(flags)
    assert "--listen-client-urls=https://10.111.0.2:2379,https://127.0.0.1:2379" in flags
    assert ",".join(a_plan.servers) in plan.machine_command(a_plan, "n1")


def etcd(a_plan: plan.Plan, instance: str = "cp1") -> list[str]:
    """As the program that the plan names starts it."""
    certificates = PurePath(a_plan.trust(instance), "etcd")
    return [*etcd_flags.command(a_plan.member(instance), certificates, PurePath("/d"))]


@pytest.mark.parametrize("nodes", [1, 3, plan.MAX_NODES])
def test_no_two_nodes_have_the_same_user_ids(nodes: int) -> None:
    """Of all clusters that the machine has room for: one kernel runs the containers of all of them."""
    taken: list[str] = []
    end = 600_100_001  # after what adduser(8) gives out
    for _ in range(14):
        lan = next(plan.lans(taken))
        taken.append(lan.network)
        a_plan = plan.Plan(name="t", folder="/f", nodes=nodes, lan=lan, config="/c")
        for name in a_plan.node_names:
            ids = users.Ids.parse(a_plan.node_ids(name))
            assert ids.first >= end
            end = ids.end
            assert f"--ids {ids}" in " ".join(plan.machine_command(a_plan, name))
    assert end <= 0x7FFE0000
    assert plan.Plan(name="t", folder="/f", nodes=3, lan=next(plan.lans(taken[:1])), config="/c").node_ids("n2") == (
        "933036032:31916032"
    )
