"""What an apply tells beside its result."""

from controlplane.core import warnings
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build


def told(**container: object) -> tuple[str, ...]:
    """The warnings for a service whose container has these fields."""
    template = pb.TaskTemplate(container=pb.Container(image="hello", **container))  # type: ignore[arg-type]
    service = pb.Service(meta=pb.Meta(name="a"), spec=pb.ServiceSpec(replicas=1, template=template))
    found = warnings.warnings(service, images=[], empty=warnings.emptied([]), services=[])
    return tuple(line for line in found if "has no image" not in line)


def test_a_privileged_container_is_told() -> None:
    """With what would do instead."""
    (line,) = told(privileged=True)
    assert "whoever gets into it is root of the node" in line
    assert "capabilities.add" in line


def test_what_is_within_the_container_is_not_told() -> None:
    """A warning on everything is read by nobody."""
    assert told() == told(init=True, seccomp="unconfined", read_only_rootfs=True) == ()


def test_an_image_that_nobody_is_asked_for_has_to_be_on_the_nodes() -> None:
    """No push and no registry changes that."""

    def told_of(policy: pb.ImagePullPolicy.ValueType, image: str) -> str:
        made = build.service()
        made.spec.template.container.image, made.spec.template.container.image_pull_policy = image, policy
        lines = warnings.warnings(made, images=[], empty=warnings.emptied([build.node("n1")]), services=[])
        (line,) = [line for line in lines if image in line]
        return line

    assert "`orchctl image push local:1` brings it" in told_of(pb.IMAGE_PULL_POLICY_MISSING, "local:1")
    assert "has not told" in told_of(pb.IMAGE_PULL_POLICY_MISSING, "registry.lan/local:1")
    for image in ("local:1", "registry.lan/local:1"):
        assert "is never fetched; tasks start only on nodes" in told_of(pb.IMAGE_PULL_POLICY_NEVER, image)


def test_a_port_of_the_tasks_own_node_needs_a_node_for_each() -> None:
    """One that listens on every node does not."""
    lines = [
        warnings.warnings(
            service(mode=mode), images=[], empty=warnings.emptied([build.node("n1")]), services=["default/web"]
        )
        for mode in (pb.PUBLISH_MODE_HOST, pb.PUBLISH_MODE_INGRESS, pb.PUBLISH_MODE_UNSPECIFIED)
    ]
    told_of_ports = [[line for line in found if "is published on the node" in line] for found in lines]
    assert [len(found) for found in told_of_ports] == [1, 0, 0]


def test_a_rule_for_a_service_that_is_not_there_is_told_with_the_nearest() -> None:
    """It may come later, so the rule is not refused."""
    rule = pb.AllowRule(**{"from": "apo"})
    found = warnings.warnings(service(allow=rule), images=[], empty=warnings.emptied([]), services=["default/api"])
    assert found[-1] == 'there is no service default/apo that `allow` could let in; did you mean "default/api"?'


def service(
    *, mode: "pb.PublishMode.ValueType" = pb.PUBLISH_MODE_UNSPECIFIED, allow: pb.AllowRule | None = None
) -> pb.Service:
    made = build.service()
    made.spec.template.container.ports.add(target=80, published=8080, mode=mode)
    if allow is not None:
        made.spec.allow.append(allow)
    return made
