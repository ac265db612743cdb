"""What an apply tells beside its result."""

import pytest

from controlplane.core import warnings
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.warned import applied, placed


def told(**container: object) -> tuple[str, ...]:
    """The warnings for a service whose container has these fields."""
    template = pb.TaskTemplate(container=pb.Container(image="hello", **container))  # type: ignore[arg-type]
    service = pb.Service(meta=pb.Meta(name="a"), spec=pb.ServiceSpec(replicas=1, template=template))
    found = warnings.warnings(service, images=[], empty=warnings.emptied([]), services={})
    return tuple(line for line in found if "has no image" not in line)


def test_a_privileged_container_is_told() -> None:
    """With what would do instead."""
    (line,) = told(privileged=True)
    assert "whoever gets into it is root of the node" in line
    assert "capabilities.add" in line


def test_what_is_within_the_container_is_not_told() -> None:
    """A warning on everything is read by nobody."""
    assert told() == told(init=True, seccomp="unconfined", read_only_rootfs=True) == ()


@pytest.mark.parametrize(
    ("deadline_ms", "interval_ms", "warned"),
    [(10_000, 10_000, True), (5_000, None, True), (10_001, 10_000, False), (None, None, False), (60_000, 1_000, False)],
)
def test_a_deadline_before_the_second_asking_is_told(
    deadline_ms: int | None, interval_ms: int | None, warned: bool
) -> None:
    """Whatever of both stands in the manifest; and of whose probe."""
    made = build.service()
    made.spec.template.sidecars.add(name="proxy", image="hello").probes.readiness.http.port = "80"
    if interval_ms is not None:
        made.spec.template.sidecars[0].probes.readiness.interval = interval_ms
    if deadline_ms is not None:
        made.spec.update.progress_deadline = deadline_ms
    found = warnings.warnings(made, images=[], empty=warnings.emptied([build.node("n1")]), services={})
    lines = [line for line in found if line.startswith("spec.update.progressDeadline: ")]
    assert len(lines) == warned
    assert all("the readiness probe of proxy asks every 10s, so" in line for line in lines)


def test_an_image_that_nobody_is_asked_for_has_to_be_on_the_nodes() -> None:
    """No push and no registry changes that."""

    def told_of(policy: pb.ImagePullPolicy.ValueType, image: str) -> str:
        made = build.service()
        made.spec.template.container.image, made.spec.template.container.image_pull_policy = image, policy
        lines = warnings.warnings(made, images=[], empty=warnings.emptied([build.node("n1")]), services={})
        (line,) = [line for line in lines if image in line]
        return line

    assert "`orchctl image push local:1` brings it" in told_of(pb.IMAGE_PULL_POLICY_MISSING, "local:1")
    assert "has not told" in told_of(pb.IMAGE_PULL_POLICY_MISSING, "registry.lan/local:1")
    for image in ("local:1", "registry.lan/local:1"):
        assert "is never fetched; tasks start only on nodes" in told_of(pb.IMAGE_PULL_POLICY_NEVER, image)


def test_a_port_of_the_tasks_own_node_needs_a_node_for_each() -> None:
    """One that listens on every node does not."""
    on_the_node, *others = (
        applied(service(mode=mode))
        for mode in (pb.PUBLISH_MODE_HOST, pb.PUBLISH_MODE_INGRESS, pb.PUBLISH_MODE_UNSPECIFIED)
    )
    (line,) = on_the_node
    assert line == (
        "spec.template.container.ports[0]: 8080 is published on the node, so each of the 3 replicas needs a node of "
        "its own, and 1 node takes its tasks; the others stay pending; write `replicas: 1`, or add nodes"
    )
    assert others == [[], []]


def test_only_nodes_that_take_its_tasks_count_for_a_port() -> None:
    """n2 is drained, n3 is not one of those that it wants, and only for a port it counts who is away."""
    nodes = (build.node("n1"), build.node("n2", availability=pb.AVAILABILITY_DRAIN), build.node("n3"), build.node("n4"))
    made = service(mode=pb.PUBLISH_MODE_HOST)
    assert applied(made, nodes=nodes) == []
    made.spec.template.placement.constraints.append("node.name != n3")
    (line,) = applied(made, nodes=nodes)
    assert "each of the 3 replicas needs a node of its own, and 2 nodes take its tasks" in line


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("apo", 'did you mean "api"?'),
        ("zip", "apply it, or remove this"),
        ("wep", "apply it, or remove this"),
        ("shop/apo", 'did you mean "shop/api"?'),
        ("shp/api", 'did you mean "shop/api"?'),
        ("defaut/api", 'did you mean "api"?'),
        ("default", "apply it, or remove this"),
    ],
)
def test_a_rule_for_a_service_that_is_not_there_is_told_with_the_nearest(said: str, remedy: str) -> None:
    """It may come later, so the rule is not refused. Names are compared with names, but never with the service's."""
    other = build.service("api")
    other.meta.namespace = "shop"
    made = build.service("web")
    made.spec.allow.add(**{"from": said})
    key = said if "/" in said else f"default/{said}"
    assert applied(made, build.service("api"), build.service("billing"), other) == [
        f"spec.allow[0].from: there is no service {key}, so nobody is let in by this; {remedy}"
    ]


@pytest.mark.parametrize(
    ("field", "weight", "then"),
    [
        ("near", 0, "its tasks wait for it"),
        ("near", 5, "this counts for nothing"),
        ("apart", 0, "there is nothing to be apart from"),
        ("apart", 5, "this counts for nothing"),
    ],
)
def test_company_that_is_not_there_is_told_with_place_and_remedy(field: str, weight: int, then: str) -> None:
    wishes = {field: [pb.Affinity(service="web"), pb.Affinity(service="databse", weight=weight)]}
    path = f"spec.template.placement.{field}[1].service"
    made = placed(**wishes)
    made.spec.replicas = 1
    assert applied(made, build.service("database")) == [
        f'{path}: there is no service default/databse, so {then}; did you mean "database"?'
    ]
    assert applied(made) == [f"{path}: there is no service default/databse, so {then}; apply it, or remove this"]


def test_a_dependency_that_is_not_there_is_told_with_the_nearest() -> None:
    made = build.service("web")
    made.spec.depends_on["wep"] = made.spec.depends_on["apo"] = pb.DEPENDENCY_CONDITION_READY
    assert applied(made, build.service("api")) == [
        'spec.dependsOn.apo: there is no service default/apo, so its tasks wait for it; did you mean "api"?',
        "spec.dependsOn.wep: there is no service default/wep, so its tasks wait for it; apply it, or remove this",
    ]


def service(*, mode: "pb.PublishMode.ValueType") -> pb.Service:
    made = build.service()
    made.spec.template.container.ports.add(target=80, published=8080, mode=mode)
    return made


def test_waiting_for_what_runs_nothing_is_told() -> None:
    waits = build.service("web")
    waits.spec.depends_on["db"] = pb.DEPENDENCY_CONDITION_READY
    db = build.service("db", replicas=0)
    assert applied(waits, db) == [
        "spec.dependsOn.db: db has no replicas; its tasks wait until `orchctl scale db=1` or more"
    ]
    db.spec.replicas = 1
    assert applied(waits, db) == []
    db.spec.stopped = True
    assert applied(waits, db) == ["spec.dependsOn.db: db is stopped; its tasks wait until `orchctl start db`"]
