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


# Services that are not there -----------------------------------------------------------------------------------------


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
            (
                "preferences[0]: no node fulfils node.labels.zone == b, so it counts for nothing; "
                "change it, or `orchctl node label NODE zone=VALUE`"
            ),
        ),
        (
            {"preferences": [pb.Preference(expression="node.labels.zoen == a", weight=5)]},
            'preferences[0]: no node fulfils node.labels.zoen == a, so it counts for nothing; did you mean "zone"?',
        ),
        (
            {"preferences": [pb.Preference(expression="node.name == n9", weight=5)]},
            "preferences[0]: no node fulfils node.name == n9, so it counts for nothing; change it, or remove it",
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


@pytest.mark.parametrize(
    ("container", "field"),
    [
        ("container", "container"),
        ("sidecars", "sidecars[1]"),
        ("init", "init[1]"),
    ],
)
@pytest.mark.parametrize("resource", ["memory", "generic"])
def test_what_fits_nowhere_is_told_at_the_container_that_reserves_it(container: str, field: str, resource: str) -> None:
    made = build.service()
    template = made.spec.template
    for listed in (template.sidecars, template.init):
        for name in "ab":
            listed.add(name=name, image="hello").resources.reservations.memory = 1 << 20
    blamed = template.container if container == "container" else getattr(template, container)[1]
    if resource == "memory":
        blamed.resources.reservations.memory = 1 << 40
    else:
        blamed.resources.reservations.generic.update({"disk": 1, "gpu": 2})
    node = build.node("n1")
    node.status.description.capacity.generic["disk"].ids.append("0")
    (line,) = applied(made, nodes=(node,))
    suffix = ".gpu" if resource == "generic" else ""
    assert line.startswith(f"spec.template.{field}.resources.reservations.{resource}{suffix}: its tasks stay pending")


# Some of them find a place ------------------------------------------------------------------------------------------

HERE = pb.Affinity(service="web")
SAME_ZONE = pb.Affinity(service="web", by="node.labels.zone")


@pytest.mark.parametrize(
    ("wishes", "told_of"),
    [
        ({"near": [HERE], "max_per_node": 1}, ("maxPerNode", "1 of its 5 replicas finds", "or write `replicas: 1`")),
        ({"near": [SAME_ZONE], "max_per_node": 2}, ("near[0]", "4 of its 5 replicas find", "or write `replicas: 4`")),
        ({"near": [HERE]}, None),
        ({"near": [pb.Affinity(service="web", weight=1)], "max_per_node": 2}, None),
        ({"apart": [HERE]}, ("apart[0]", "3 of its 5 replicas find", "write `replicas: 3`, or add nodes")),
        ({"apart": [SAME_ZONE]}, ("apart[0]", "2 of its 5 replicas find", "write `replicas: 2`, or add nodes")),
        ({"apart": [HERE], "constraints": ["node.name == n1"]}, ("apart[0]", "1 of its 5", "write `replicas: 1`")),
        ({"apart": [pb.Affinity(service="web", weight=1)]}, None),
        ({"max_per_node": 1}, ("maxPerNode", "3 of its 5 replicas find", "write `replicas: 3`, or add nodes")),
        ({"max_per_node": 2}, None),
        ({"max_per_node": 2, "constraints": ["node.name in (n1, n2)"]}, ("maxPerNode", "4 of its 5", "`replicas: 4`")),
        (
            {"spread": [pb.Spread(by="node.labels.zone", max_skew=1)], "constraints": ["node.name != n2"]},
            None,
        ),
        (
            {"spread": [pb.Spread(by="node.labels.zone", max_skew=1)], "max_per_node": 2},
            None,
        ),
        (
            {"spread": [pb.Spread(by="node.name", max_skew=1)]},
            None,
        ),
    ],
    ids=str,
)  # fmt: skip
def test_replicas_that_find_no_place_are_told(wishes: dict[str, object], told_of: tuple[str, str, str] | None) -> None:
    """n1 and n2 are in zone a, n3 in zone b; and each is as if it had no task and were there."""
    nodes = tuple(build.node(name, availability=pb.AVAILABILITY_DRAIN) for name in ("n1", "n2", "n3"))
    for node, zone in zip(nodes, "aab", strict=True):
        node.meta.labels["zone"] = zone
    made = placed(**wishes)
    made.spec.replicas = 5
    lines = applied(made, nodes=nodes)
    assert len(lines) == (told_of is not None)
    for line in lines:
        assert told_of is not None
        field, number, remedy = told_of
        assert line.startswith(f"spec.template.placement.{field}: {number}")
        assert remedy in line.rpartition("; ")[2]


def test_the_last_of_a_skew_that_finds_no_place_is_told() -> None:
    """Zone b has room for one, so that zone a takes two and no more."""
    nodes = (build.node("n1"), build.node("n2", tasks=1))
    for node, zone in zip(nodes, "ab", strict=True):
        node.meta.labels["zone"] = zone
    made = placed(spread=[pb.Spread(by="node.labels.zone", max_skew=1)])
    made.spec.replicas = 4
    (line,) = applied(made, nodes=nodes)
    assert line == (
        "spec.template.placement.spread[0].maxSkew: 3 of its 4 replicas find a place, even if every node were empty; "
        "write a greater maxSkew, write `replicas: 3`, or add nodes"
    )


NEAR_A, NEAR_B, NEAR_C = ([pb.Affinity(service=name)] for name in "abc")


def taking(
    what: str,
    update: pb.UpdatePolicy,
    *,
    replicas: int = 3,
    mode: pb.ServiceMode.ValueType = pb.SERVICE_MODE_REPLICATED,
) -> pb.Service:
    """A service whose tasks take something of their nodes."""
    made = build.service(replicas=replicas)
    made.spec.mode = mode
    made.spec.update.CopyFrom(update)
    container = made.spec.template.container
    match what:
        case "port":
            container.ports.add(target=80, published=8080, mode=pb.PUBLISH_MODE_HOST)
        case "gpu":
            container.resources.reservations.generic["gpu"] = 1
        case "no gpu":
            container.resources.reservations.generic["gpu"] = 0
        case "fence":
            made.spec.on_node_loss.fence = True
        case _:
            pass
    return made


ALL, GLOBAL = pb.UpdatePolicy(parallelism=0), pb.SERVICE_MODE_GLOBAL
STOP_FIRST, START_FIRST = pb.UPDATE_ORDER_STOP_FIRST, pb.UPDATE_ORDER_START_FIRST
