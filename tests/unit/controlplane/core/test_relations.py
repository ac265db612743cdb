"""Objects that do not fit together are refused with the name of what is in the way."""

import pytest

from controlplane.core import apply, edits, pins, relations
from controlplane.core import request_errors as errors
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build

APPLY_IT = "apply the network first, or in the same files"
IMAGES = pins.Known(digests={"hello:latest": "sha256:1", "hello:1": "sha256:1"})
INGRESS, HOST = pb.PUBLISH_MODE_INGRESS, pb.PUBLISH_MODE_HOST


def service(
    name: str, *, namespace: str = "default", port: pb.Port | None = None, networks: tuple[str, ...] = ()
) -> pb.Service:
    made = build.service(name, version=0)
    made.meta.namespace = namespace
    made.spec.networks.extend(networks)
    if port is not None:
        made.spec.template.container.ports.append(port)
    return made


def network(name: str, namespace: str = "default") -> pb.Network:
    return pb.Network(meta=pb.Meta(name=name, namespace=namespace))


def refused(wanted: kinds.StoredObject, *there: kinds.StoredObject) -> list[tuple[str, str]]:
    """Messages and hints."""
    around = relations.Surroundings.after(there, [wanted])
    return [(str(one.mistake), one.hint) for one in relations.refusals([wanted], around)]


def published(number: int = 8080, mode: "pb.PublishMode.ValueType" = INGRESS, protocol: int = 0) -> pb.Port:
    return pb.Port(target=80, published=number, mode=mode, protocol=protocol)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mine", "theirs", "clash"),
    [
        (published(), published(), True),
        (published(mode=pb.PUBLISH_MODE_UNSPECIFIED), published(mode=pb.PUBLISH_MODE_UNSPECIFIED), True),
        (published(), published(mode=HOST), True),
        (published(mode=HOST), published(), True),
        (published(mode=HOST), published(mode=HOST), False),
        (published(), published(8081), False),
        (published(), published(protocol=pb.PROTOCOL_UDP), False),
        (published(), published(protocol=pb.PROTOCOL_TCP), True),
    ],
)  # fmt: skip
def test_a_port_that_listens_on_every_node_has_one_service(mine: pb.Port, theirs: pb.Port, clash: bool) -> None:
    found = refused(service("web", port=mine), service("api", namespace="other", port=theirs))
    told = "Service default/web: spec.template.container.ports[0].published: port 8080/tcp is published by"
    assert [message for message, _ in found] == ([f"{told} Service other/api already"] if clash else [])


def test_a_service_does_not_stand_in_its_own_way() -> None:
    assert refused(service("web", port=published()), service("web", port=published())) == []


def test_a_port_that_moves_within_one_apply_is_free() -> None:
    """What counts is what will be there."""
    wanted = [service("web", port=published(8081)), service("api", port=published(8080))]
    around = relations.Surroundings.after([service("web", port=published(8080))], wanted)
    assert list(relations.refusals(wanted, around)) == []


def test_a_service_that_is_being_deleted_has_its_port_until_it_is_gone() -> None:
    leaving = service("api", port=published())
    leaving.meta.deleted_at = 1
    ((message, hint),) = refused(service("web", port=published()), leaving)
    assert message.endswith("by Service default/api already, which is being deleted")
    assert hint == "wait until it is gone, then apply again"


@pytest.mark.parametrize(
    ("names", "complaints"),
    [
        ((), []),
        (("default", "back", "other/front", "other/default"), []),
        (("bakc",), ['spec.networks[0]: there is no network "bakc" in namespace default; did you mean "back"?']),
        (
            ("back", "front"),
            [f'spec.networks[1]: there is no network "front" in namespace default; {APPLY_IT}'],
        ),
        (
            ("nowhere/default",),
            [f'spec.networks[0]: there is no network "default" in namespace nowhere; {APPLY_IT}'],
        ),
    ],
)
def test_networks_have_to_be_there(names: tuple[str, ...], complaints: list[str]) -> None:
    found = refused(service("web", networks=names), network("back"), network("front", "other"))
    assert [f"{message}; {hint}".removeprefix("Service default/web: ") for message, hint in found] == complaints


def test_a_network_of_the_same_apply_is_there() -> None:
    wanted = [service("web", networks=("back",)), network("back")]
    decision = apply.decide({}, apply.prepare(wanted), images=IMAGES, now_ms=1, new_id=lambda: "id")
    assert len(decision.changes) == 2


def test_a_network_that_is_used_stays() -> None:
    users = [service("web", networks=("back",)), service("api", namespace="other", networks=("default/back",))]
    with pytest.raises(errors.NotNow, match="Network default/back is used by Service default/web, Service other/api"):
        edits.check_removable(network("back"), users)
    for one in users:
        one.meta.deleted_at = 1
    edits.check_removable(network("back"), users)


def test_the_default_network_is_not_made_by_hand() -> None:
    with pytest.raises(errors.Invalid, match="every namespace has a network default already"):
        apply.prepare([network("default")])


def test_all_refusals_of_an_apply_are_told_together() -> None:
    wanted = apply.prepare([service("web", port=published(), networks=("gone",))])
    with pytest.raises(errors.RequestError) as caught:
        apply.decide(
            {}, wanted, others=[service("api", port=published())], images=IMAGES, now_ms=1, new_id=lambda: "id"
        )
    assert len(caught.value.mistakes) == 2
