"""`orchctl network`, as a process, against a control plane in memory."""

from collections.abc import Callable
from pathlib import Path

import grpc

from protos.orch.v1 import control_pb2 as control
from tests.support import samples
from tests.support.fake_control import FakeControl
from tests.support.orchctl import Result

Run = Callable[..., Result]
GOOD = control.NetworkFinding(source="n1", target="n2", what="packets of 1450 bytes", microseconds=310)
BAD = control.NetworkFinding(
    source="n2",
    target="n1",
    what="packets of 1450 bytes",
    problem="packets of 1450 bytes do not pass; the largest that do have 1350",
)
LOST = control.NetworkFinding(source="n3", target="n3", what="its agent", problem="it is down")


def test_a_check_shows_what_every_node_has_tried(fake: FakeControl, run: Run) -> None:
    fake.findings = [GOOD]
    result = run("network", "check", "n1", "--timeout", "2s")
    assert result.code == 0, result.err
    assert [line.split() for line in result.out.splitlines()] == [
        ["FROM", "TO", "WHAT", "RESULT"],
        ["n1", "n2", "packets", "of", "1450", "bytes", "ok", "0.31", "ms"],
    ]
    asked = fake.asked(control.CheckNetworkRequest)
    assert asked == [control.CheckNetworkRequest(nodes=["n1"], timeout=2000)]


def test_what_is_broken_is_named_and_fails(fake: FakeControl, run: Run) -> None:
    fake.findings = [BAD, GOOD, LOST]
    result = run("network", "check")
    assert result.code == 1
    assert "2 of 3 things that were tried are broken" in result.err
    assert "n2 → n1: packets of 1450 bytes: packets of 1450 bytes do not pass; the largest" in result.err
    assert "n3: its agent: it is down" in result.err
    assert [line.split()[0] for line in result.out.splitlines()] == ["FROM", "n1", "n2", "n3"]


def test_only_what_is_broken(fake: FakeControl, run: Run) -> None:
    fake.findings = [BAD, GOOD]
    result = run("network", "check", "--broken")
    assert result.code == 1
    assert [line.split()[0] for line in result.out.splitlines()] == ["FROM", "n2"]
    fake.findings = [GOOD]
    result = run("network", "check", "--broken")
    assert (result.code, result.out) == (0, "")


def test_what_cannot_be_known_is_no_failure(fake: FakeControl, run: Run) -> None:
    fake.findings = [GOOD, control.NetworkFinding(source="n1", target="web", what="UDP port 53", unknown="no answer")]
    result = run("network", "check")
    assert result.code == 0, result.err
    assert "unknown: no answer" in result.out


def test_nothing_to_try_is_said(run: Run) -> None:
    result = run("network", "check")
    assert result.code == 0
    assert "nothing to try" in result.out


def test_a_refusal_is_told(fake: FakeControl, run: Run) -> None:
    fake.refuses["CheckNetwork"] = (grpc.StatusCode.NOT_FOUND, control.Error(message="there is no node 'n9'"))
    result = run("network", "check", "n9")
    assert result.code == 1
    assert "there is no node 'n9'" in result.err


def test_networks_go_after_what_is_in_them(run: Run, fake: FakeControl, tmp_path: Path) -> None:
    """The files of a folder are read by name, so a network may stand before or after its services."""
    network = "kind: Network\nmeta: {name: back}\n"
    service = "kind: Service\nmeta: {name: %s}\nspec: {networks: [back], template: {container: {image: hello}}}\n"
    for name, text in {"api": service % "api", "networks": network, "web": service % "web"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    for value in (samples.service("api"), samples.network("back"), samples.service("web")):
        fake.put(value)
    assert run("delete", "-f", str(tmp_path)).code == 0
    order = [request.reference.name for request in fake.asked(control.DeleteRequest)]
    assert order == ["web", "api", "back"]
