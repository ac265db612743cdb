"""What is to be thought of a machine."""

from typing import TYPE_CHECKING

import pytest

from agent.core import diagnosis
from agent.core.diagnosis import Port
from protos import findings
from protos.orch.v1 import control_pb2 as pb
from trust.core.certificate import Facts

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 1 << 30
DAY_MS = 86_400_000
NODE = (("O", "c"), ("OU", "node"), ("CN", "n1"))


def facts(not_before: int, not_after: int) -> Facts:
    return Facts(
        subject=NODE,
        issuer=(),
        serial=1,
        not_before_ms=not_before * DAY_MS,
        not_after_ms=not_after * DAY_MS,
        key_digest="",
    )


def port(**said: object) -> Port:
    return Port(number=7402, protocol="tcp", purpose="layers", option="give another --blob-port", **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("finding", "verdict", "said"),
    [
        (diagnosis.root(0), "ok", "root"),
        (diagnosis.root(1000), "failed", "user 1000"),
        (diagnosis.kernel("6.1.0", (6, 1)), "ok", "6.1.0"),
        (diagnosis.kernel("5.18.9", (5, 18)), "warning", "no overlays on idmapped layers"),
        (diagnosis.seccomp("2.5.4", "kill errno trap"), "ok", "2.5.4"),
        (diagnosis.seccomp("", "errno"), "failed", "libseccomp is missing"),
        (diagnosis.seccomp("2.5.4", ""), "failed", "filters no system calls"),
        (diagnosis.control_groups("v2", {"cpu", "memory", "pids", "io", "cpuset"}), "ok", "version 2 with"),
        (diagnosis.control_groups("v2", {"cpu", "pids", "io", "cpuset"}), "failed", "without memory"),
        (diagnosis.control_groups("v2", {"cpu", "memory", "pids", "cpuset"}), "warning", "without io"),
        (diagnosis.control_groups("v1", {"cpu", "memory", "pids", "blkio", "cpuset"}), "warning", "version 1"),
        (diagnosis.control_groups("", set()), "failed", "no control groups"),
        (diagnosis.disk("/x", 100 * GIB, 50 * GIB), "ok", "50% are free of 100Gi"),
        (diagnosis.disk("/x", 100 * GIB, 9 * GIB), "warning", "9% are free"),
        (diagnosis.disk("/x", 100 * GIB, GIB), "failed", "images do not unpack"),
        (diagnosis.disk("/x", 2 * GIB, GIB - 1), "failed", "images do not unpack"),
        (diagnosis.inodes("/x", 0, 0), "ok", "as many as there is room for"),
        (diagnosis.inodes("/x", 100, 11), "ok", "11%"),
        (diagnosis.inodes("/x", 100, 9), "warning", "9%"),
        (diagnosis.inodes("/x", 100, 1), "failed", "1%"),
        (diagnosis.memory(8 * GIB, 4 * GIB), "ok", "4Gi are free of 8Gi"),
        (diagnosis.memory(8 * GIB, 100 << 20), "warning", "may end the agent"),
        (diagnosis.port(port()), "ok", "free"),
        (diagnosis.port(port(holder="agent (pid 7)", ours=True)), "ok", "the agent has it"),
        (diagnosis.port(port(holder="nginx (pid 7)")), "failed", "nginx (pid 7) has it"),
        (diagnosis.clock_against("theirs", 5), "ok", "within 5 ms of theirs"),
        (diagnosis.clock_against("theirs", -3_000), "warning", "3 s behind theirs"),
        (diagnosis.clock_against("theirs", 3_000, 2_500), "ok", "within 3 s"),
        (diagnosis.clock_against("theirs", 400_000), "failed", "6.67 min ahead of theirs"),
        (diagnosis.mtu("eth0", 1500, "10.0.0.1"), "ok", "1500"),
        (diagnosis.mtu("eth0", 1200, "10.0.0.1"), "failed", "would not go through a tunnel"),
        (diagnosis.mtu("", 0, "10.0.0.1"), "failed", "no interface of this machine has the address 10.0.0.1"),
        (diagnosis.names({}), "warning", "no name server"),
        (diagnosis.names({"10.0.0.2": "", "10.0.0.3": ""}), "ok", "10.0.0.2, 10.0.0.3 answer"),
        (diagnosis.names({"10.0.0.2": "refused", "10.0.0.3": ""}), "warning", "some name servers"),
        (diagnosis.names({"10.0.0.2": "refused"}), "warning", "no name server answers (10.0.0.2: refused)"),
        (diagnosis.certificate(facts(0, 90), 10 * DAY_MS, "join"), "ok", "that of node n1 is good for 80 days"),
        (diagnosis.certificate(facts(0, 90), 80 * DAY_MS, "join"), "warning", "should have been renewed"),
        (diagnosis.certificate(facts(0, 90), 92 * DAY_MS, "join"), "failed", "expired 2 days ago"),
        (diagnosis.certificate(facts(10, 90), 7 * DAY_MS, "join"), "failed", "this machine's clock is behind"),
    ],
)
def test_what_is_to_be_thought(finding: pb.Finding, verdict: str, said: str) -> None:
    """And whatever is not well has a remedy, and nothing else has."""
    assert (findings.word(finding), said in finding.message) == (verdict, True), finding
    assert bool(finding.remedy) == (verdict != "ok")


@pytest.mark.parametrize(
    "judge",
    [
        diagnosis.users,
        diagnosis.overlay,
        diagnosis.nftables,
        diagnosis.vxlan,
        diagnosis.ids,
    ],
)
def test_what_was_tried_says_the_kernel_s_own_words(judge: "Callable[[str], pb.Finding]") -> None:
    assert findings.word(judge("")) == "ok"
    bad = judge("mount: permission denied")
    assert findings.word(bad) in {"warning", "failed"}
    assert "mount: permission denied" in bad.message


def test_a_finding_is_a_line_in_columns_without_control_characters() -> None:
    found = [
        *findings.at("n1", [findings.ok("clock", "right")]),
        *findings.at("node-2", [findings.failed("disk", "full\x1b[31m\nof it", "buy one")]),
    ]
    assert findings.lines(found) == [
        "ok       n1      clock  right",
        "failed   node-2  disk   full [31m of it — buy one",
    ]
    assert findings.summary(found) == "2 things were looked at: 1 failed, 0 warnings"
    assert findings.summary(found[:1]) == "1 thing was looked at: all is well"
    assert findings.of_documents(findings.documents(found)) == found
    assert findings.has_failed(found)
