"""What nodes say is held to bounds: a registration is refused, the words on a task are cut, foreign addresses go."""

import pytest

from controlplane.core import reports, said
from manifests import rules
from protos import states
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build

MIB = 2**20


def registration(**description: object) -> wire.Register:
    described = pb.NodeDescription(hostname="n1", address="10.0.0.1", **description)  # type: ignore[arg-type]
    described.capacity.CopyFrom(pb.NodeCapacity(cpu=4_000, memory=2**34, tasks=100))
    return wire.Register(node_id="n1", node_name="n1", description=described, labels={"zone": "a"})


def test_what_an_agent_says_of_itself_is_taken() -> None:
    told = registration(kernel="6.1.0-27-cloud-amd64", os="Debian GNU/Linux 12 (bookworm)", blob_port=7402)
    told.description.capacity.generic["gpu"].ids.extend(["0", "1"])
    assert said.refusal(told, "n1") == ""
    assert said.refusal(told, "") == ""


@pytest.mark.parametrize("name", ["hostname", "platform", "kernel", "os", "cgroup_mode", "agent_version", "no_users"])
def test_each_text_of_a_description_has_a_bound(name: str) -> None:
    told = registration()
    setattr(told.description, name, "x" * 2_000)
    assert f"description.{name.partition('_')[0]}" in said.refusal(told, "")
    assert "at most" in said.refusal(told, "")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda told: setattr(told.description, "address", "garbage"), "description.address: not an address; start"),
        (lambda told: setattr(told.description, "address", "999.1.1.1"), "description.address: not an address"),
        (lambda told: setattr(told.description, "address", "fe80::1%eth0"), "description.address: not an address"),
        (lambda told: setattr(told.description, "blob_port", 70_000), "description.blobPort: 70000 is too big"),
        (lambda told: setattr(told.description.capacity, "cpu", -1), "capacity.cpu"),
        (lambda told: setattr(told.description.capacity, "memory", 2**63 - 1), "capacity.memory"),
        (lambda told: setattr(told, "node_name", "N 1"), "nodeName"),
        (lambda told: setattr(told, "node_name", ""), "nodeName: missing"),
        (lambda told: setattr(told, "node_id", ""), "nodeId: missing"),
        (lambda told: told.labels.update({"zone": "a b"}), "labels.zone: not a label's value"),
        (lambda told: told.labels.update({" ": "a"}), "not a label's name"),
        (lambda told: told.labels.update({f"k{n}": "a" for n in range(101)}), "labels: 102 entries, at most 100"),
        (
            lambda told: told.description.capacity.generic["gpu"].ids.extend("x" * MIB for _ in range(2)),
            "may have 65536",
        ),
    ],
)
def test_a_registration_that_breaks_a_rule_is_refused_with_the_place(change: object, expected: str) -> None:
    told = registration()
    change(told)  # type: ignore[operator]  # it is one of the lambdas
    assert expected in said.refusal(told, "")


def test_an_address_of_either_family_is_one() -> None:
    told = registration()
    told.description.address = "fd00::5"
    assert said.refusal(told, "") == ""
    told.description.address = ""  # a node that gives nothing to others
    assert said.refusal(told, "") == ""


def test_a_node_keeps_the_name_that_it_joined_with() -> None:
    refusal = said.refusal(registration(), "payroll")
    assert "joined as payroll" in refusal
    assert "--name payroll" in refusal


def test_every_text_that_a_registration_has_is_bounded_by_the_whole() -> None:
    """A field that a later release adds may come without a bound of its own."""
    for field in pb.NodeDescription.DESCRIPTOR.fields:
        if field.type == field.TYPE_STRING:
            told = registration()
            setattr(told.description, field.name, "x" * MIB)
            assert said.refusal(told, ""), field.name
    assert rules.validate(registration()) == ()


def report(**status: object) -> wire.TaskReport:
    return wire.TaskReport(task_id="x", status=pb.TaskStatus(state=states.RUNNING, **status))  # type: ignore[arg-type]


def accepted(one: wire.TaskReport, node: pb.Node | None) -> pb.TaskStatus:
    change = reports.accept(build.task(1, states.STARTING), "n1", node, one)
    assert change is not None
    assert isinstance(change.value, pb.Task)
    assert len(change.why) < 2 * said.MAX_WORDS
    return change.value.status


def test_long_words_on_a_task_are_cut_and_the_rest_is_kept() -> None:
    one = report(message="x" * 2 * MIB, reason="y" * MIB, restarts=3, exit_code=137, root_id=0, ready=True)
    one.status.containers.add(name="z" * MIB)
    status = accepted(one, build.node())
    assert status.ByteSize() < said.MAX_STATUS_BYTES
    assert status.message == "x" * (said.MAX_WORDS - 1) + "…"
    assert (status.restarts, status.exit_code, status.ready, len(status.containers)) == (3, 137, True, 0)
    assert status.HasField("root_id")


def test_what_is_not_known_here_is_left_out_when_it_is_long() -> None:
    """A field of another release, or of nobody."""
    one = report(message="fine")
    stranger = b"\xfa\x3f" + b"\x80\x80\x40" + b"x" * MIB  # field 1023, MIB bytes
    one.status.MergeFromString(stranger)
    assert one.status.ByteSize() > MIB
    status = accepted(one, build.node())
    assert status.ByteSize() < 100
    assert status.message == "fine"


def test_short_words_stay_as_they_are() -> None:
    one = report(message="it\nhas ended", containers=[pb.ContainerStatus(name="proxy", restarts=2)])
    assert accepted(one, build.node()) == one.status


@pytest.mark.parametrize("address", ["10.112.2.7", "10.0.0.1", "garbage", "999.999.999.999", "fd00::5"])
def test_a_task_has_no_address_outside_its_nodes_subnet(address: str) -> None:
    """Its own is 10.112.1.0/24. Others would take what is sent to it, or be taken for it."""
    status = accepted(report(address=address, ready=True), build.node("n1"))
    assert (status.address, status.reason, status.ready) == ("", said.FOREIGN, True)
    assert address in status.message


def test_a_task_has_addresses_of_its_nodes_subnets() -> None:
    node = build.node("n1")
    node.status.subnet6 = "fd00:1::/64"
    one = report(address="10.112.1.7", address6="fd00:1::7")
    assert accepted(one, node) == one.status
    one.status.address6 = "fd00:2::7"
    assert (accepted(one, node).address, accepted(one, node).address6) == ("10.112.1.7", "")


def test_a_task_of_a_node_whose_record_is_gone_has_no_address() -> None:
    assert accepted(report(address="10.112.1.7"), None).address == ""
