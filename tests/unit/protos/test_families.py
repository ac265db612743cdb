"""What is said twice, once for each family of addresses."""

from ipaddress import ip_network

import pytest

from protos import families
from protos.families import V4, V6
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb


@pytest.mark.parametrize(("text", "family"), [("10.0.0.1", V4), ("fd00::1", V6), ("10.0.0.0/8", V4), ("fd00::/8", V6)])
def test_the_family_of_an_address_or_a_range(text: str, family: families.Family) -> None:
    assert families.of(text) is family


def test_what_is_no_address_has_no_family() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        families.of("n1")


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (pb.TaskStatus, "address"),
        (pb.ServiceStatus, "address"),
        (pb.NodeStatus, "subnet"),
        (pb.EndpointsStatus, "address"),
        (pb.EndpointTask, "address"),
        (pb.ClusterStatus, "last_service_address"),
        (pb.ClusterStatus, "last_subnet"),
        (dpb.NetworkService, "address"),
        (dpb.Endpoint, "address"),
        (dpb.NetworkPeer, "subnet"),
        (dpb.NodeNetwork, "subnet"),
        (dpb.NodeNetwork, "cluster_range"),
        (dpb.NodeNetwork, "service_range"),
    ],
)
def test_every_message_has_both(message: type[pb.TaskStatus], name: str) -> None:
    """By the same name, with a 6 at its end."""
    made = message()
    V6.set(made, name, "fd00::1")
    assert (families.told(made, name), families.every(made, name)) == ((V6,), ("fd00::1",))
    V4.set(made, name, "10.0.0.1")
    assert families.shown(made, name) == "10.0.0.1, fd00::1"


def test_an_address_before_a_port() -> None:
    assert (families.bracketed("fd00::1"), families.bracketed("10.0.0.1")) == ("[fd00::1]", "10.0.0.1")


def test_ranges_of_different_families_have_nothing_in_common() -> None:
    """Those of one may have."""
    apart = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    assert families.overlapping(apart) is None
    inside = ip_network("fd00::/64")
    assert families.overlapping([*apart, inside]) == (apart[1], inside)
