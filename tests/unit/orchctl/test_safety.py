"""`describe` tells in what a container differs from one that asked for nothing."""

import pytest

import manifests
from orchctl import pages, safety
from protos.orch.v1 import objects_pb2 as pb
from tests.support import samples
from tests.unit.orchctl.test_tables import VIEW


def test_a_container_that_asks_for_nothing_differs_in_nothing() -> None:
    """Nor does one with every default filled in."""
    resolved = manifests.resolve(pb.TaskTemplate(container=pb.Container(image="a")))
    assert safety.differences(pb.Container(image="a")) == []
    assert safety.differences(resolved.container) == []


@pytest.mark.parametrize(
    ("container", "line"),
    [
        (pb.Container(privileged=True), "privileged: its root is root of the node"),
        (
            pb.Container(userns=pb.USER_NAMESPACE_HOST),
            "users of the node: its root is the node's, held by capabilities and filters alone",
        ),
        (pb.Container(seccomp="unconfined"), "system calls are not filtered"),
        (pb.Container(seccomp="{}"), "system calls are filtered by a profile of its own"),
        (
            pb.Container(allow_privilege_escalation=True),
            "programs may gain rights (setuid, file capabilities)",
        ),
        (
            pb.Container(capabilities=pb.Capabilities(add=["NET_ADMIN", "SYS_TIME"])),
            "capabilities added: NET_ADMIN, SYS_TIME",
        ),
        (pb.Container(capabilities=pb.Capabilities(drop=["ALL"])), "capabilities dropped: ALL"),
        (pb.Container(devices=[pb.Device(path="/dev/fuse")]), "device /dev/fuse (rw)"),
        (
            pb.Container(devices=[pb.Device(path="/dev/a", container_path="/dev/b", permissions="r")]),
            "device /dev/a at /dev/b (r)",
        ),
        (
            pb.Container(sysctls={"net.core.somaxconn": "9"}),
            "kernel parameter net.core.somaxconn = 9",
        ),
        (
            pb.Container(tmpfs={"/tmp": pb.Tmpfs(exec=True), "/run": pb.Tmpfs()}),
            "programs run from the folder in memory /tmp",
        ),
        (pb.Container(oom_score_adj=-5), "is spared when memory runs out (-5)"),
        (
            pb.Container(resources=pb.Resources(limits=pb.ResourceLimits(pids=5000))),
            "more processes: 5000",
        ),
        (pb.Container(read_only_rootfs=True), "its root file system is read-only"),
        (pb.Container(user="app"), "runs as app, not as root"),
    ],
)
def test_each_difference_is_a_line(container: pb.Container, line: str) -> None:
    """What it may do, then what it may not."""
    assert safety.differences(container) == [line]


def test_the_page_of_a_service_has_a_section_for_them() -> None:
    """Only where there are any."""
    service = samples.service()
    assert "Not as every container:" not in pages.service(service, [], [], VIEW)
    service.spec.template.container.privileged = True
    lines = pages.service(service, [], [], VIEW)
    assert lines[lines.index("Not as every container:") + 1] == "  privileged: its root is root of the node"


def task_with(root_id: int | None, node: str = "i1") -> pb.Task:
    """A task on a node, with users of its own or not, or not known."""
    return pb.Task(node_id=node, status=pb.TaskStatus(root_id=root_id))


HOST = pb.Container(userns=pb.USER_NAMESPACE_HOST)
PRIVILEGED = pb.Container(privileged=True)


@pytest.mark.parametrize(
    ("root_id", "container", "words"),
    [
        (None, pb.Container(), ""),
        (1 << 20, pb.Container(), "its own: its root is user 1048576 of the node"),
        (1 << 20, None, "its own: its root is user 1048576 of the node"),
        (0, HOST, "the node's, as its template asks"),
        (0, None, "the node's"),
        (0, PRIVILEGED, "the node's, as its template asks"),
        (0, pb.Container(), "the node's, which can give it none of its own; `orchctl describe node` tells why"),
    ],
)
def test_whose_users_a_task_has(root_id: int | None, container: pb.Container | None, words: str) -> None:
    """As its agent says, and whether that is what was asked for."""
    assert safety.users(task_with(root_id), container) == words


def test_whose_users_the_tasks_of_a_service_have() -> None:
    """Those that have fewer walls than they should are counted, with their nodes."""
    assert safety.users_of_tasks(HOST, [task_with(0)], str) == "the nodes'"
    assert safety.users_of_tasks(pb.Container(), [task_with(1 << 20), task_with(None)], str) == "its own"
    tasks = [task_with(1 << 20, "n1"), task_with(0, "n3"), task_with(0, "n2"), task_with(0, "n2")]
    assert safety.users_of_tasks(pb.Container(), tasks, str) == (
        "its own, but the node's for 3 of 4 tasks: n2, n3 can give them none"
    )


def test_tasks_of_an_earlier_template_are_not_counted() -> None:
    """They asked for something else, and are on their way out."""
    service, old, new = samples.service(), task_with(0), task_with(0)
    old.revision_id, new.revision_id = "older", service.status.revision_id
    assert f"{'Users:':16}its own" in pages.service(service, [old], [], VIEW)
    assert f"{'Users:':16}its own, but the node's for 1 of 1 tasks: " in "\n".join(
        pages.service(service, [old, new], [], VIEW)
    )


def test_whose_users_containers_have_on_a_node() -> None:
    """And why they have not their own."""
    assert safety.users_of_node(pb.NodeDescription()) == "containers have their own"
    assert safety.users_of_node(pb.NodeDescription(no_users="no")) == "containers have the node's: no"
