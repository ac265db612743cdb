"""What there should be of the way to other nodes, as values."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import overlay
from agent.core.overlay import Impossible, Plan, Route, Underlay
from protos.orch.v1 import dispatcher_pb2 as dpb

VXLAN, ROUTES, AUTO = dpb.NETWORK_MODE_VXLAN, dpb.NETWORK_MODE_ROUTES, dpb.NETWORK_MODE_AUTO
CARD = Underlay(name="eth0", mtu=1500)
NEAR = dpb.NetworkPeer(node_id="near", address="192.0.2.12", subnet="10.112.2.0/24")
FAR = dpb.NetworkPeer(node_id="far", address="198.51.100.13", subnet="10.112.3.0/24")
SEGMENTS = {NEAR.address: 7}


def plan(mode: dpb.NetworkMode.ValueType, *peers: dpb.NetworkPeer, mtu: int = 0, card: Underlay = CARD) -> Plan:
    network = dpb.NodeNetwork(cluster_range="10.112.0.0/16", subnet="10.112.1.0/24", peers=peers, mode=mode, mtu=mtu)
    return overlay.plan(network, "192.0.2.11", card, SEGMENTS, sources=["10.112.1.1"])


def test_a_tunnelled_peer_has_a_route_a_neighbour_and_a_forwarding_entry() -> None:
    tunnel = plan(VXLAN, NEAR).tunnel
    assert tunnel is not None
    assert tunnel.local == "192.0.2.11"
    assert tunnel.hardware_address.hex(":") == "02:6f:0a:70:01:01"
    hardware = bytes.fromhex("026f0a700201")
    assert tunnel.neighbours == {"10.112.2.1": hardware}
    assert tunnel.forwarding == {hardware: "192.0.2.12"}
    assert tunnel.routes == (
        Route(destination="10.112.2.0/24", gateway="10.112.2.1", onlink=True, source="10.112.1.1"),
    )


def test_a_plain_route_leads_through_the_peer_itself() -> None:
    made = plan(ROUTES, NEAR)
    assert made.tunnel is None
    assert made.routes == (Route(destination=NEAR.subnet, gateway=NEAR.address, device=7, source="10.112.1.1"),)


@pytest.mark.parametrize(
    ("mode", "peers", "plain", "tunnelled", "mtu"),
    [
        (AUTO, [], [], None, 1500),
        (AUTO, [NEAR], [NEAR], None, 1500),
        (AUTO, [NEAR, FAR], [NEAR], [FAR], 1450),
        (AUTO, [FAR], [], [FAR], 1450),
        (VXLAN, [], [], [], 1450),
        (VXLAN, [NEAR, FAR], [], [NEAR, FAR], 1450),
        (ROUTES, [NEAR, FAR], [NEAR], None, 1500),
        (dpb.NETWORK_MODE_UNSPECIFIED, [NEAR, FAR], [NEAR], [FAR], 1450),
    ],
)
def test_the_mode_says_who_is_reached_how(
    mode: dpb.NetworkMode.ValueType,
    peers: list[dpb.NetworkPeer],
    plain: list[dpb.NetworkPeer],
    tunnelled: list[dpb.NetworkPeer] | None,
    mtu: int,
) -> None:
    made = plan(mode, *peers)
    assert [route.destination for route in made.routes] == [peer.subnet for peer in plain]
    assert (made.tunnel is None) == (tunnelled is None)
    if made.tunnel is not None:
        assert [route.destination for route in made.tunnel.routes] == [peer.subnet for peer in tunnelled or []]
        assert made.tunnel.mtu == mtu
    assert made.mtu == mtu


def test_who_cannot_be_reached_is_named() -> None:
    assert plan(ROUTES, NEAR, FAR).unreachable == (
        "node far at 198.51.100.13 is on no segment with this one (192.0.2.11), which the network mode `routes` needs",
    )
    assert plan(AUTO, NEAR, FAR).unreachable == ()


def test_a_peer_without_an_address_or_a_subnet_waits() -> None:
    made = plan(
        VXLAN, dpb.NetworkPeer(node_id="a", address="192.0.2.9"), dpb.NetworkPeer(node_id="b", subnet="10.1.0.0/24")
    )
    assert made.tunnel is not None
    assert made.tunnel.routes == ()


@pytest.mark.parametrize(
    ("card_mtu", "mode", "asked", "mtu"),
    [(9000, VXLAN, 0, 8950), (9000, VXLAN, 1450, 1450), (65_536, ROUTES, 0, 1500), (65_536, VXLAN, 0, 1450)],
)
def test_the_size_is_worked_out(card_mtu: int, mode: dpb.NetworkMode.ValueType, asked: int, mtu: int) -> None:
    """Loopback's size says nothing of a network."""
    assert plan(mode, NEAR, mtu=asked, card=Underlay(name="x", mtu=card_mtu)).mtu == mtu


@pytest.mark.parametrize(
    ("mode", "asked", "card_mtu", "message"),
    [
        (VXLAN, 575, 1500, "575 bytes is too small: the least is 576"),
        (VXLAN, 1451, 1500, "1451 bytes is too large: 1450 fit, as device eth0 takes 1500, and VXLAN needs 50 of it"),
        (ROUTES, 1501, 1500, "1501 bytes is too large: 1500 fit, as device eth0 takes 1500"),
        (VXLAN, 0, 600, "550 bytes is too small: the least is 576; device eth0 takes 600"),
    ],
)
def test_a_size_that_does_not_fit_names_the_numbers(
    mode: dpb.NetworkMode.ValueType, asked: int, card_mtu: int, message: str
) -> None:
    with pytest.raises(Impossible, match=message):
        plan(mode, NEAR, mtu=asked, card=Underlay(name="eth0", mtu=card_mtu))


@pytest.mark.parametrize(
    ("addresses", "routes", "why"),
    [
        ({"10.112.9.9": "eth0"}, {}, "device eth0 has the address 10.112.9.9, which lies in the range 10.112.0.0/16"),
        ({"10.112.1.1": "orch0", "10.113.0.1": "eth0"}, {}, None),
        ({}, {"10.112.128.0/17": ("eth1", False)}, "the route to 10.112.128.0/17 on device eth1 overlaps the range"),
        ({}, {"10.112.128.0/17": ("eth1", True)}, "the route to 10.112.128.0/17 on device eth1 overlaps the range"),
        ({}, {"10.0.0.0/8": ("eth1", False)}, "the route to 10.0.0.0/8 on device eth1 overlaps the range"),
        ({}, {"10.0.0.0/8": ("eth1", True)}, None),
        ({}, {"0.0.0.0/0": ("eth1", True), "10.112.1.2/32": ("orch-1234", False)}, None),
    ],
)
def test_what_the_node_uses_itself_is_a_conflict(
    addresses: dict[str, str], routes: dict[str, tuple[str, bool]], why: str | None
) -> None:
    found = overlay.conflict({"range": "10.112.0.0/16"}, addresses, routes)
    assert found is None if why is None else why in (found or "")


BOTH = {"cluster_range": "10.112.0.0/16", "cluster_range6": "fd00:112::/48", "subnet6": "fd00:112:0:1::/64"}
NEAR_BOTH = dpb.NetworkPeer(node_id="near", address="192.0.2.12", subnet="10.112.2.0/24", subnet6="fd00:112:0:2::/64")
NEAR_SIX = dpb.NetworkPeer(node_id="near", address="2001:db8::12", subnet6="fd00:112:0:2::/64")
SOURCES = ("10.112.1.1", "fd00:112:0:1::1")


def dual(mode: dpb.NetworkMode.ValueType, *peers: dpb.NetworkPeer, address: str = "192.0.2.11", mtu: int = 0) -> Plan:
    network = dpb.NodeNetwork(subnet="10.112.1.0/24", peers=peers, mode=mode, mtu=mtu, **BOTH)
    return overlay.plan(network, address, CARD, {"192.0.2.12": 7, "2001:db8::12": 8}, sources=SOURCES)


def test_a_plain_route_of_ipv6_between_nodes_of_ipv4_leads_through_a_link_local_address() -> None:
    """Which is computed from the peer's own; this node has one of the same kind on that device."""
    made = dual(ROUTES, NEAR_BOTH)
    assert made.routes == (
        Route(destination="10.112.2.0/24", gateway="192.0.2.12", device=7, source="10.112.1.1"),
        Route(destination="fd00:112:0:2::/64", gateway="fe80::6f72:6368:c000:20c", device=7, source="fd00:112:0:1::1"),
    )
    assert (made.link_local, made.link_local_devices) == ("fe80::6f72:6368:c000:20b", {7})


def test_a_plain_route_between_nodes_of_ipv6_needs_no_other_address() -> None:
    """For either family."""
    peer = dpb.NetworkPeer(node_id="near", address="2001:db8::12", subnet="10.112.2.0/24", subnet6="fd00:112:0:2::/64")
    made = dual(ROUTES, peer, address="2001:db8::11")
    assert {route.gateway for route in made.routes} == {"2001:db8::12"}
    assert (made.link_local, made.link_local_devices) == ("", frozenset())


def test_in_the_tunnel_a_node_has_one_hardware_address_for_both_families() -> None:
    tunnel = dual(VXLAN, NEAR_BOTH).tunnel
    assert tunnel is not None
    card = bytes.fromhex("026f0a700201")
    assert tunnel.neighbours == {"10.112.2.1": card, "fd00:112:0:2::1": card}
    assert tunnel.forwarding == {card: "192.0.2.12"}
    assert [route.destination for route in tunnel.routes] == ["10.112.2.0/24", "fd00:112:0:2::/64"]
    assert [route.source for route in tunnel.routes] == list(SOURCES)


def test_a_peer_that_has_no_subnet_of_ipv6_yet_is_reached_by_ipv4() -> None:
    """While a cluster becomes one of both families."""
    for mode in (ROUTES, VXLAN):
        made = dual(mode, NEAR)
        routes = made.tunnel.routes if made.tunnel is not None else made.routes
        assert [route.destination for route in routes] == [NEAR.subnet]


def test_nodes_of_different_families_are_not_reached() -> None:
    """In words; the others are."""
    for mode in (ROUTES, VXLAN, AUTO):
        made = dual(mode, NEAR_SIX, NEAR_BOTH)
        (why,) = made.unreachable
        assert "near at 2001:db8::12 and this one (192.0.2.11) have addresses of different families" in why


@pytest.mark.parametrize(
    ("address", "mode", "asked", "mtu"),
    [
        ("192.0.2.11", VXLAN, 0, 1450),
        ("2001:db8::11", VXLAN, 0, 1430),
        ("2001:db8::11", ROUTES, 0, 1500),
        ("192.0.2.11", VXLAN, 1280, 1280),
    ],
)
def test_the_size_of_packets_with_ipv6(address: str, mode: dpb.NetworkMode.ValueType, asked: int, mtu: int) -> None:
    """Its header has 20 bytes more."""
    assert dual(mode, address=address, mtu=asked).mtu == mtu


def test_ipv6_has_a_larger_least_size() -> None:
    with pytest.raises(Impossible, match="an MTU of 1279 bytes is too small: the least is 1280"):
        dual(VXLAN, mtu=1279)


@given(
    prefix=st.integers(32, 96),
    numbers=st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1)).filter(lambda pair: pair[0] != pair[1]),
)
def test_no_two_subnets_of_a_range_have_the_same_hardware_address(prefix: int, numbers: tuple[int, int]) -> None:
    """Wherever in the address their numbers stand."""
    start, shift = int(IPv6Address("fd00::")), 128 - prefix - 16
    found = {overlay.hardware_address(str(IPv6Address(start + (number << shift) + 1))) for number in numbers}
    assert len(found) == 2


def test_what_of_the_node_lies_inside_a_range_of_ipv6() -> None:
    ranges = {"cluster's IPv6 range": "fd00:112::/48"}
    assert overlay.conflict(ranges, {"fe80::1": "eth0", "10.0.0.1": "eth0"}, {"::/0": ("eth0", True)}) is None
    assert overlay.conflict(ranges, {}, {"fd00::/8": ("eth0", True), "0.0.0.0/1": ("eth0", False)}) is None
    assert overlay.conflict(ranges, {"fd00:112::9": "eth0"}, {}) == (
        "device eth0 has the address fd00:112::9, which lies in the cluster's IPv6 range fd00:112::/48"
    )
    assert overlay.conflict(ranges, {}, {"fd00:112:0:5::/64": ("eth0", True)}) == (
        "the route to fd00:112:0:5::/64 on device eth0 overlaps the cluster's IPv6 range fd00:112::/48"
    )
