"""The doctor of a cluster with real nodes, some of which are broken."""

import json
import re
import subprocess

import pytest

from deploy.local import cluster
from tests.support import pages
from tests.support.cluster import LocalCluster
from tests.support.waiting import until

pytestmark = pytest.mark.root

SELDOM = {"configuration", "address", "leader", "alarms", "ports"}
"""Of an installed agent, of an address that nobody has, while nobody leads, and among several control planes."""

Findings = dict[tuple[str, str, str], str]


def examined(local: LocalCluster, *, code: int) -> Findings:
    """Message and remedy by place, check and verdict."""
    found = json.loads(local.orchctl("cluster", "doctor", "-o", "json", code=code))
    return {(one["place"], one["check"], one["verdict"]): f"{one['message']} — {one['remedy']}" for one in found}


def test_a_cluster_that_works_has_failed_in_nothing(local: LocalCluster) -> None:
    """Whatever this machine lacks is a warning; every node's machine, its network and its clock were looked at."""
    found = examined(local, code=0)
    for node in ("n1", "n2", "n3"):
        for check in ("node", "version", "clock", "overlayfs", "nftables", "certificate", "mtu", "network"):
            assert (node, check, "ok") in found, (node, check)
    assert ("etcd", "quorum", "ok") in found


def test_every_check_is_on_the_page_and_the_page_has_no_others(local: LocalCluster) -> None:
    """docs/doctor.md; and its example has lines like those of a node here."""
    cells = re.findall(r"^\| (`.+?) \|", pages.text("doctor.md"), re.MULTILINE)
    told = {name for cell in cells for name in re.findall("`(.+?)`", cell)} - {"here", "etcd …"}
    found = examined(local, code=0)
    checks = {re.sub("^port .+", "port …", check) for _, check, _ in found}
    assert checks <= told, "each has a row"
    assert told - checks <= SELDOM, "each row is of a check"
    for check in ("user", "kernel", "disk"):
        said = found["n1", check, "ok"].removesuffix(" — ")
        assert pages.is_seen(pages.finding(check), said), said


def test_a_link_with_a_smaller_mtu_is_found_from_both_ends(local: LocalCluster) -> None:
    """The node's own doctor sees the link, and the other nodes that their packets do not arrive."""
    link = ["nsenter", "-t", str(local.agent_pid("n2")), "-n", "ip", "link", "set", "eth0", "mtu"]
    subprocess.run([*link, "1200"], check=True)
    try:
        found = examined(local, code=1)
    finally:
        subprocess.run([*link, "1500"], check=True)
    assert "eth0 takes packets of 1200 bytes" in found["n2", "mtu", "failed"]
    broken = [text for (_, check, verdict), text in found.items() if (check, verdict) == ("network", "failed")]
    assert broken
    assert all("--network-mtu" in text for text in broken)


def test_a_machine_without_power_is_named(local: LocalCluster) -> None:
    cluster.kill_node(local.folder, "n3")
    try:
        until(lambda: local.nodes()["n3"].state != "ready", what="it is missed", timeout_s=20)
        found = examined(local, code=1)
    finally:
        cluster.start_node(local.folder, "n3")
    assert "orchctl delete node/n3" in found["n3", "node", "failed"]
    assert ("n1", "node", "ok") in found
    until(lambda: local.nodes()["n3"].state == "ready", what="it is back", timeout_s=30)
    assert ("n3", "node", "ok") in examined(local, code=0)
