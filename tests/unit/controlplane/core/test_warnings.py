"""What an apply tells beside its result."""

from controlplane.core import warnings
from protos.orch.v1 import objects_pb2 as pb


def told(**container: object) -> tuple[str, ...]:
    """The warnings for a service whose container has these fields."""
    template = pb.TaskTemplate(container=pb.Container(image="hello", **container))  # type: ignore[arg-type]
    service = pb.Service(meta=pb.Meta(name="a"), spec=pb.ServiceSpec(replicas=1, template=template))
    found = warnings.warnings(service, images=[], nodes=[], services=[])
    return tuple(line for line in found if "has no image" not in line)


def test_a_privileged_container_is_told() -> None:
    """With what would do instead."""
    (line,) = told(privileged=True)
    assert "whoever gets into it is root of the node" in line
    assert "capabilities.add" in line


def test_what_is_within_the_container_is_not_told() -> None:
    """A warning on everything is read by nobody."""
    assert told() == told(init=True, seccomp="unconfined", read_only_rootfs=True) == ()
