"""What there should be of the way to other nodes, as values."""

import pytest

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
