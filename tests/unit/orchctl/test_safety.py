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
