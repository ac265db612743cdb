"""What an apply tells beside its result."""

import pytest

from controlplane.core import warnings
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build


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
    lines = [
        warnings.warnings(
            service(mode=mode),
            images=[],
            empty=warnings.emptied([build.node("n1")]),
            services={"default/web": build.service()},
        )
        for mode in (pb.PUBLISH_MODE_HOST, pb.PUBLISH_MODE_INGRESS, pb.PUBLISH_MODE_UNSPECIFIED)
    ]
    told_of_ports = [[line for line in found if "is published on the node" in line] for found in lines]
    assert [len(found) for found in told_of_ports] == [1, 0, 0]


def test_a_rule_for_a_service_that_is_not_there_is_told_with_the_nearest() -> None:
    """It may come later, so the rule is not refused."""
    rule = pb.AllowRule(**{"from": "apo"})
    found = warnings.warnings(
        service(allow=rule), images=[], empty=warnings.emptied([]), services={"default/api": build.service("api")}
    )
    assert found[-1] == 'there is no service default/apo that `allow` could let in; did you mean "default/api"?'


def service(
    *, mode: "pb.PublishMode.ValueType" = pb.PUBLISH_MODE_UNSPECIFIED, allow: pb.AllowRule | None = None
) -> pb.Service:
    made = build.service()
    made.spec.template.container.ports.add(target=80, published=8080, mode=mode)
    if allow is not None:
        made.spec.allow.append(allow)
    return made


def applied(made: pb.Service, *others: pb.Service, nodes: tuple[pb.Node, ...] = (build.node("n1"),)) -> list[str]:
    """What is told of a service among others, but for its image."""
    services = {kinds.qualified(one): one for one in (made, *others)}
    found = warnings.warnings(made, images=[], empty=warnings.emptied(nodes), services=services)
    return [line for line in found if "has no image" not in line]


def labelled(**labels: str) -> pb.Node:
    node = build.node("n1")
    node.meta.labels.update(labels)
    node.spec.taints.add(key="dedicated")
    return node


def placed(name: str = "web", **wishes: object) -> pb.Service:
    made = build.service(name)
    made.spec.template.placement.CopyFrom(pb.Placement(**wishes))  # type: ignore[arg-type]  # fields by name
    return made


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (
            {"spread": [pb.Spread(by="node.labels.zon", max_skew=1)]},
            'spread[0].by: no node has node.labels.zon, so none takes its tasks; did you mean "zone"?',
        ),
        (
            {"spread": [pb.Spread(by="node.labels.rack")]},
            (
                "spread[0].by: no node has node.labels.rack, so none is told from another by it; "
                "`orchctl node label NODE rack=VALUE`"
            ),
        ),
        ({"spread": [pb.Spread(by="node.labels.zone", max_skew=1), pb.Spread(by="node.name")]}, ""),
        (
            {"preferences": [pb.Preference(expression="node.labels.zone == b", weight=5)]},
            "preferences[0]: no node fulfils node.labels.zone == b, so it counts for nothing",
        ),
        ({"preferences": [pb.Preference(expression="node.labels.zone == b", weight=-5)]}, ""),
        ({"preferences": [pb.Preference(expression="node.labels.zone == a")]}, ""),
        (
            {"tolerations": [pb.Toleration(key="dedicate")]},
            'tolerations[0].key: no node has a taint dedicate; did you mean "dedicated"?',
        ),
        ({"tolerations": [pb.Toleration(key="maintenance")]}, ""),
        ({"tolerations": [pb.Toleration()]}, ""),
        (
            {"near": [pb.Affinity(service="web", by="node.labels.rack")]},
            "near[0].by: no node has node.labels.rack, so none takes its tasks; `orchctl node label NODE rack=VALUE`",
        ),
    ],
    ids=str,
)
def test_what_matches_no_node_is_told_with_place_and_remedy(wishes: dict[str, object], expected: str) -> None:
    made = placed(**wishes)
    made.spec.template.placement.tolerations.add(key="dedicated")
    told_of = applied(made, nodes=(labelled(zone="a"),))
    assert told_of == ([f"spec.template.placement.{expected}"] if expected else [])


@pytest.mark.parametrize(
    ("constraint", "cpu", "expected"),
    [
        ("node.name == n9", 0, ("spec.template.placement.constraints: ", "`orchctl node label NODE KEY=VALUE`")),
        ("node.name == n1", 900_000, ("spec.template.container.resources.reservations.cpu: ", "reserve less")),
    ],
)
def test_what_fits_nowhere_is_told_with_place_and_remedy(constraint: str, cpu: int, expected: tuple[str, str]) -> None:
    made = placed(constraints=[constraint])
    made.spec.template.container.resources.reservations.cpu = cpu
    (line,) = applied(made)
    assert line.startswith(f"{expected[0]}its tasks stay pending, even if every node were empty")
    assert expected[1] in line.rpartition("; ")[2]


NEAR_A, NEAR_B, NEAR_C = ([pb.Affinity(service=name)] for name in "abc")


def test_services_that_are_near_to_each_other_in_a_circle_are_told_of() -> None:
    """A wish with a weight holds nobody up, and to be near to its own replicas is no circle."""
    (line,) = applied(placed("a", near=NEAR_B), placed("b", near=NEAR_C), placed("c", near=NEAR_A))
    assert line == (
        "spec.template.placement.near[0]: a → b → c → a are each near to the next, so that none can be placed before "
        "another runs; remove one, or give it a weight"
    )
    assert applied(placed("a", near=NEAR_B), placed("b", near=[pb.Affinity(service="a", weight=1)])) == []
    assert applied(placed("a", near=NEAR_A)) == []
    assert applied(placed("a", near=NEAR_B), placed("b")) == []


@pytest.mark.parametrize(
    ("near_by", "apart_by", "weight", "clash"),
    [
        ("", "", 0, True),
        ("", "node.labels.zone", 0, True),
        ("node.labels.zone", "node.labels.zone", 0, True),
        ("node.labels.zone", "node.name", 0, False),
        ("", "", 1, False),
    ],
)
def test_near_to_what_keeps_apart_is_told_on_both_sides(near_by: str, apart_by: str, weight: int, clash: bool) -> None:
    a = placed("a", apart=[pb.Affinity(service="b", by=apart_by, weight=weight)])
    b = placed("b", near=[pb.Affinity(service="a", by=near_by)])
    zone = (labelled(zone="z"),)
    for one in (a, b):
        one.spec.template.placement.tolerations.add(key="dedicated")
    assert [line.partition(":")[0] for line in (*applied(a, b, nodes=zone), *applied(b, a, nodes=zone))] == (
        ["spec.template.placement.apart[0]", "spec.template.placement.near[0]"] if clash else []
    )


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


@pytest.mark.parametrize(
    ("update", "field"),
    [
        (pb.UpdatePolicy(canary=5), "spec.update.canary"),
        (pb.UpdatePolicy(canary=2), "spec.update.canary"),
        (pb.UpdatePolicy(canary=1), ""),
        (pb.UpdatePolicy(parallelism=1, max_surge="1"), "spec.update.parallelism"),
        (pb.UpdatePolicy(max_surge="1"), ""),
        (pb.UpdatePolicy(parallelism=1), ""),
    ],
    ids=lambda value: str(value).replace("\n", " "),
)
def test_what_of_an_update_counts_for_nothing_is_told(update: pb.UpdatePolicy, field: str) -> None:
    made = build.service(replicas=2)
    made.spec.update.CopyFrom(update)
    assert [line.partition(":")[0] for line in applied(made)] == ([field] if field else [])


@pytest.mark.parametrize(
    ("policy", "order", "field"),
    [
        (pb.DisruptionPolicy(min_available="5"), pb.UPDATE_ORDER_STOP_FIRST, "spec.disruption.minAvailable"),
        (pb.DisruptionPolicy(min_available="51%"), pb.UPDATE_ORDER_STOP_FIRST, "spec.disruption.minAvailable"),
        (pb.DisruptionPolicy(max_unavailable="49%"), pb.UPDATE_ORDER_STOP_FIRST, "spec.disruption.maxUnavailable"),
        (pb.DisruptionPolicy(min_available="50%"), pb.UPDATE_ORDER_STOP_FIRST, ""),
        (pb.DisruptionPolicy(max_unavailable="1"), pb.UPDATE_ORDER_STOP_FIRST, ""),
        (pb.DisruptionPolicy(min_available="5"), pb.UPDATE_ORDER_START_FIRST, ""),
        (pb.DisruptionPolicy(), pb.UPDATE_ORDER_STOP_FIRST, ""),
    ],
    ids=lambda value: str(value).replace("\n", " "),
)
def test_a_service_that_can_never_leave_a_node_is_told(
    policy: pb.DisruptionPolicy, order: pb.UpdateOrder.ValueType, field: str
) -> None:
    made = build.service(replicas=2)
    made.spec.disruption.CopyFrom(policy)
    made.spec.update.order = order
    lines = applied(made)
    assert [line.partition(":")[0] for line in lines] == ([field] if field else [])
    assert all("waits until its --deadline" in line for line in lines)
