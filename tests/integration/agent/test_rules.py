"""The table of nftables rules on real nodes: what a change touches, and what others do to it."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.adapters import rules
from agent.core.network import Attachment
from tests.support.fake_leader import endpoint, service
from tests.support.netlab import EVERY_KIND, INGRESS, PORTS, TCP, Lab, LabNode
from tests.support.places import VIRTUAL, names, prohibited, refused
from tests.support.waiting import until

pytestmark = pytest.mark.root


def test_a_flushed_table_is_made_anew(lab: Lab, one: LabNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and whatever was done to it; tables of others are left alone."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(TCP, INGRESS)))
    one.run("nft", "add table inet mine; add chain inet mine kept; add rule inet mine kept counter")
    monkeypatch.setattr(rules, "MEND_INTERVAL_S", 0.0)
    before = table(one)
    for harm in (
        "delete table inet orch",
        "flush table inet orch",
        "flush chain inet orch inbound",
        "delete element inet orch services { 10.113.0.1 . tcp . 80 }",
        "add element inet orch services { 10.113.0.9 . tcp . 80 : goto endpoints-any-1 }",
    ):
        one.run("nft", harm)
        until(lambda: table(one) == before, what=f"all is well after {harm}", timeout_s=3)
        assert one.ask(VIRTUAL, 80).name == "web-1"
    assert "counter packets 0" in one.run("nft", "list", "table", "inet", "mine")
    one.run("nft", "flush ruleset")
    until(lambda: table(one) == before, what="all is well after everything was flushed", timeout_s=3)


def table(node: LabNode) -> list[str]:
    """The rules, whatever the counters say and in whatever order elements come."""
    try:
        listed = node.run("nft", "-s", "list", "table", "inet", "orch")
    except AssertionError:
        return []
    return sorted(line.removesuffix(",") for line in listed.splitlines())


def test_one_change_leaves_the_rest_as_it_is(lab: Lab, one: LabNode) -> None:
    """Of an endpoint: no chain, no rule and no set is made anew, and no counter begins again."""
    lab.task(one, "web-1", 2)
    lab.task(one, "web-2", 3)
    members = [endpoint("10.112.1.2"), endpoint("10.112.1.3")]
    other = service("other", endpoint("10.112.1.2"), number=2, ports=PORTS)
    lab.serve(service("web", *members, ports=PORTS), other)
    lab.serve(service("web", members[0], ports=PORTS))
    lab.serve(service("web", *members, ports=PORTS))
    one.ask(VIRTUAL, 80)
    before = handles(one)
    lab.serve(service("web", members[1], ports=PORTS))
    assert handles(one) == before
    assert one.ask(VIRTUAL, 80).name == "web-2"
    with one.entered():
        assert rules.counters()[VIRTUAL].requests == 2


def handles(node: LabNode) -> list[str]:
    """Every chain, rule and set with its number."""
    return [line for line in node.run("nft", "-a", "list", "table", "inet", "orch").splitlines() if "# handle" in line]


def test_where_many_tasks_come_at_a_time_transactions_are_few(one: LabNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs the start of a program; but one task alone waits for no other."""
    told: list[str] = []
    carry_out = rules._Watch.nft

    def counted(watch: rules._Watch, text: str) -> None:
        told.append(text)
        carry_out(watch, text)

    make = one.network._namespaces.make_network_namespace

    async def made_slowly(path: Path, **options: Any) -> None:
        await asyncio.sleep(2 * rules.TOGETHER_S)
        await make(path, **options)

    async def one_after_the_other(attachments: Sequence[Attachment]) -> None:
        async with asyncio.TaskGroup() as group:
            for attachment in attachments:
                group.create_task(one.network.attach(attachment))
                await asyncio.sleep(rules.TOGETHER_S / 10)

    monkeypatch.setattr(rules._Watch, "nft", counted)
    busy = [one.attachment(f"web-{number}", number, "web") for number in range(10, 10 + 5 * rules.MANY)]
    one.attached = {attachment.task_id: attachment for attachment in busy}
    with monkeypatch.context() as slow:
        slow.setattr(one.network._namespaces, "make_network_namespace", made_slowly)
        one.call(one_after_the_other(busy))
    there = "".join(table(one))
    assert all(f"{attachment.address} " in there for attachment in busy)
    assert len(told) <= len(busy) / 2
    told.clear()
    for number in range(100, 105):
        one.attach(f"web-{number}", number, "web")
    assert len(told) == 5, "one alone waits for nobody"


def test_traffic_is_counted(lab: Lab, one: LabNode) -> None:
    """Connections and bytes, of virtual addresses and of published ports."""
    lab.task(one, "web-1", 2)
    client = lab.task(one, "client-1", 9, "client")
    lab.serve(
        service("web", endpoint("10.112.1.2"), ports=(TCP, INGRESS)),
        service("client", endpoint("10.112.1.9"), number=2),
    )
    names(client, times=3)
    names(lab.outside, one.address, 8080, times=2)
    with one.entered():
        found = rules.counters()
    assert found[VIRTUAL].requests == 3
    assert found[VIRTUAL].bytes > 3 * 200
    assert found["tcp 8080"].requests == 2
    assert found["tcp 8080"].bytes > 2 * 200


@EVERY_KIND
def test_who_is_refused_is_counted(lab: Lab, one: LabNode) -> None:
    """Where no task is ready, at a port that there is not, and where a task's networks do not let them in."""
    lab.task(one, "web-1", 2)
    client, stranger = lab.task(one, "client-1", 9, "client"), lab.task(one, "stranger-1", 8, "stranger")
    web = service("web", endpoint("10.112.1.2"), ports=(TCP, INGRESS))
    known = service("client", endpoint("10.112.1.9"), number=2)
    elsewhere = service("stranger", endpoint("10.112.1.8"), number=3, networks=("default/other",))
    lab.serve(web, known, elsewhere)
    refused(client, VIRTUAL, 81)
    prohibited(stranger, VIRTUAL, 80)
    names(client, times=2)
    with one.entered():
        found = rules.counters()
    again = range(1 + one.six)  # of IPv6 the kernel may ask once more, see `prohibited`
    assert found[one.at(VIRTUAL)].requests - 4 in again
    assert found[one.at(VIRTUAL)].refused == 1
    assert found[one.at("10.112.1.2")].refused - 1 in again
    assert found[one.at(VIRTUAL)].packets > 4
    lab.serve(service("web", endpoint("10.112.1.2", ready=False), ports=(TCP, INGRESS)), known, elsewhere)
    refused(client, VIRTUAL, 80)
    refused(lab.outside, one.address, 8080)
    with one.entered():
        found = rules.counters()
    assert found[one.at(VIRTUAL)].refused == 2
    assert found["tcp 8080"].refused == 1


def test_a_new_agent_takes_everything_over(lab: Lab, one: LabNode) -> None:
    """Rules hold while there is none; one transaction replaces them; a connection goes on through all of it."""
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(TCP, INGRESS)))
    one.stop()
    assert lab.outside.ask(one.address, 8080).name == "web-1"
    before = table(one)
    one.start()
    one.configure()
    assert table(one) == before
    assert lab.outside.ask(one.address, 8080).name == "web-1"


def test_the_subnet_changes(one: LabNode) -> None:
    """The node's device has the new gateway's address alone, and nothing of the old subnet is left."""
    one.described.subnet = "10.112.7.0/24"
    one.configure()
    assert "10.112.1." not in one.run("ip", "addr") + one.run("ip", "route")
    assert "10.112.7.1/32" in one.run("ip", "addr", "show", "orch0")


def test_a_machine_that_is_a_node_no_more(lab: Lab, one: LabNode) -> None:
    """Has no table, no link and no route of ours; what others have made is still there."""
    one.run("nft", "add table inet mine")
    lab.task(one, "web-1", 2)
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(TCP, INGRESS)))
    assert "orch" in one.run("ip", "link")
    one.stop()
    one.run(sys.executable, "-m", "agent.leave", f"--state={one.folder}", "--cgroup-parent=/orch-is-not-there")
    left = one.run("ip", "route") + one.run("ip", "link")
    assert "orch" not in left
    assert "10.112." not in left
    assert "dev lan" in left
    assert one.run("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/route_localnet").split() == [
        "0",
        "0",
    ]
    assert one.run("nft", "list", "tables").split() == ["table", "inet", "mine"]
    one.start()


def test_a_node_that_joins_leaves_the_rules_as_they_are(lab: Lab, one: LabNode) -> None:
    """Counters go on, and its tasks' node is let in."""
    lab.serve(service("web", endpoint("10.112.1.2"), ports=(TCP,)))
    before = handles(one)
    one.described.peers.add(node_id="y", address="192.0.2.3", subnet="10.112.3.0/24")
    one.configure()
    assert handles(one) == before
    assert "10.112.3.1" in one.run("nft", "list", "set", "inet", "orch", "gateways")
    assert "10.112.3.0/24 via 192.0.2.3" in one.run("ip", "route")
