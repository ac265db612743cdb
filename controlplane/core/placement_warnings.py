"""What of a service's placement can hold for no node, or for no task, of this cluster as it is now.

Whether there is room for its tasks is a question of its own (`room_warnings`).

The rule: each line names the field and a remedy. None is a reason to refuse: nodes, labels and services may come later.
"""

from collections.abc import Iterator, Mapping, Sequence

from controlplane.core import attributes, fleet, room_warnings
from manifests import constraints, dependencies, suggest
from manifests import placement as rules
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

Services = Mapping[str, pb.Service]
"""By `namespace/name`."""

_PLACEMENT = "spec.template.placement"


def of(service: pb.Service, empty: fleet.Fleet, services: Services) -> Iterator[str]:
    """`empty`: the nodes as if they had no task. Without nodes nothing is said of them."""
    if empty.nodes:
        yield from room_warnings.of(service, empty)
        yield from _matches_nothing(service.spec.template.placement, empty.nodes)
    yield from _circles(service, services)
    yield from _contradictions(service, services)


# What nodes have --------------------------------------------------------------------------------------------------


def _matches_nothing(placement: pb.Placement, nodes: Sequence[pb.Node]) -> Iterator[str]:
    for index, spread in enumerate(placement.spread):
        what = "takes its tasks" if spread.max_skew else "is told from another by it"
        yield from _lacking(spread.by, f"spread[{index}].by", f"none {what}", nodes)
    for index, near in enumerate(placement.near):
        what = "it counts for nothing" if near.weight else "none takes its tasks"
        yield from _lacking(near.by, f"near[{index}].by", what, nodes)
    for index, wish in enumerate(placement.preferences):
        if wish.weight >= 0 and not _fulfilled(wish.expression, nodes):
            yield (
                f"{_PLACEMENT}.preferences[{index}]: no node fulfils {wish.expression}, so it counts for nothing; "
                f"{_to_fulfil(wish.expression, nodes)}"
            )
    known = {taint.key for node in nodes for taint in node.spec.taints}
    for index, one in enumerate(placement.tolerations):
        # To tolerate what no node has now is usual; to have mistyped what one has is not.
        if one.key not in known and (meant := suggest.did_you_mean(one.key, known)):
            yield f"{_PLACEMENT}.tolerations[{index}].key: no node has a taint {one.key}; {meant}"


def _lacking(attribute: str, field: str, what: str, nodes: Sequence[pb.Node]) -> Iterator[str]:
    """Of an attribute that no node has, which can only be a label."""
    if not attribute or any(attributes.attribute_of(node, attribute) is not None for node in nodes):
        return
    key = attribute.removeprefix(constraints.LABELS)
    meant = suggest.did_you_mean(key, {label for node in nodes for label in node.meta.labels})
    remedy = meant or f"`orchctl node label NODE {key}=VALUE`"
    yield f"{_PLACEMENT}.{field}: no node has {attribute}, so {what}; {remedy}"


def _to_fulfil(expression: str, nodes: Sequence[pb.Node]) -> str:
    """Another label, where one was probably meant; else what a person can do about nodes, who give labels only."""
    attribute = constraints.parse(expression).attribute
    if not attribute.startswith(constraints.LABELS):
        return "change it, or remove it"
    key, labels = attribute.removeprefix(constraints.LABELS), {label for node in nodes for label in node.meta.labels}
    meant = suggest.did_you_mean(key, labels) if key not in labels else ""
    return meant or f"change it, or `orchctl node label NODE {key}=VALUE`"


def _fulfilled(expression: str, nodes: Sequence[pb.Node]) -> bool:
    """Whether any node does. What cannot be read was refused before."""
    wish = constraints.parse(expression)
    return any(wish.fulfilled(attributes.attribute_of(node, wish.attribute)) for node in nodes)


# What other services ask ------------------------------------------------------------------------------------------


def _circles(service: pb.Service, services: Services) -> Iterator[str]:
    """Each waits for the next, and none can be the first."""
    graph = {
        name: [other for other in _hard(one.spec.template.placement.near, one) if other != name]
        for name, one in services.items()
    }
    way = dependencies.cycle_through(kinds.qualified(service), graph)
    if way:
        near = _hard(service.spec.template.placement.near, service)
        shown = " → ".join(name.partition("/")[2] for name in way)
        yield (
            f"{_PLACEMENT}.near[{near[way[1]]}]: {shown} are each near to the next, so that none can be placed before "
            "another runs; remove one, or give it a weight"
        )


def _contradictions(service: pb.Service, services: Services) -> Iterator[str]:
    """Near to what keeps apart from it, or the other way round. Apart holds in both directions."""
    mine, placement = kinds.qualified(service), service.spec.template.placement
    remedy = "remove one of the two, or give it a weight"
    for name, index in _hard(placement.near, service).items():
        other = services.get(name)
        theirs = other.spec.template.placement.apart if other is not None and name != mine else ()
        if other is not None and _clash(placement.near[index], theirs, service.meta.name):
            shown = other.meta.name
            yield f"{_PLACEMENT}.near[{index}]: {shown} keeps apart from it, so that no node takes its tasks; {remedy}"
    for name, index in _hard(placement.apart, service).items():
        other = services.get(name)
        theirs = other.spec.template.placement.near if other is not None and name != mine else ()
        if other is not None and any(
            one.service == service.meta.name and not one.weight and _meet(one, placement.apart[index]) for one in theirs
        ):
            shown = other.meta.name
            yield f"{_PLACEMENT}.apart[{index}]: {shown} has to be near to it, and no node takes its tasks; {remedy}"


def _hard(listed: Sequence[pb.Affinity], service: pb.Service) -> dict[str, int]:
    """The services that are meant, as `namespace/name`, with the index; wishes are left out."""
    return {f"{service.meta.namespace}/{one.service}": index for index, one in enumerate(listed) if not one.weight}


def _clash(near: pb.Affinity, apart: Sequence[pb.Affinity], name: str) -> bool:
    return any(one.service == name and not one.weight and _meet(near, one) for one in apart)


def _meet(near: pb.Affinity, apart: pb.Affinity) -> bool:
    """By the same attribute; and who is near on one node is so in its zone, too."""
    near_by, apart_by = near.by or "node.name", apart.by or "node.name"
    return near_by == apart_by or near_by in rules.ONE_NODE
