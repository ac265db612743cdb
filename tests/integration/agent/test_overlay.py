"""The way between nodes, for real: machines in network namespaces on cables, segments and a router made by the test."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from agent.core.overlay import DEVICE
from agent.errors import Temporary
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.support import machines
from tests.support.machines import Lan, Machine, Space, transfer
from tests.support.waiting import until
from tests.support.wire import Wire

pytestmark = pytest.mark.root

VXLAN, ROUTES, AUTO = dpb.NETWORK_MODE_VXLAN, dpb.NETWORK_MODE_ROUTES, dpb.NETWORK_MODE_AUTO
ALL_MODES = pytest.mark.parametrize("mode", [VXLAN, ROUTES, AUTO], ids=["vxlan", "routes", "auto"])
LARGE_BYTES = 20_000_000
SMALL_BYTES = 200_000


@pytest.fixture
def make() -> Iterator[Callable[..., Machine]]:
    """Machines by number, plugged in nowhere yet; the third and later are of the second segment when `far`."""
    made: list[Machine] = []

    def machine(number: int, *, far: bool = False) -> Machine:
        made.append(Machine(number, f"{'198.51.100' if far else '192.0.2'}.{10 + number}"))
        return made[-1]

    yield machine
    for one in made:
        one.close()


@pytest.fixture
def lan() -> Iterator[Lan]:
    """A segment, which machines plug in to."""
    made = Lan()
    yield made
    made.close()


@pytest.fixture
def three(lan: Lan, make: Callable[..., Machine]) -> list[Machine]:
    """Three machines on one segment, without a way to each other's tasks yet."""
    made = [make(number) for number in (1, 2, 3)]
    machines.join(lan, *made)
    return made


@contextlib.contextmanager
def two_segments(make: Callable[..., Machine]) -> Iterator[list[Machine]]:
    """Two machines on one segment, one on another, and a router between the segments."""
    near, far = Lan(), Lan()
    between = machines.router(near, far)
    made = [make(1), make(2), make(3, far=True)]
    machines.join(near, *made[:2])
    machines.join(far, made[2])
    for machine in made:
        machines.default_route(machine)
    yield made
    for space in (between, near, far):
        space.close()


def configure(some: list[Machine], mode: dpb.NetworkMode.ValueType) -> None:
    for machine in some:
        machine.configure(*some, mode=mode)


def start_tasks(some: list[Machine]) -> None:
    """A task on each, once the kernel has brought up their links."""
    for machine in some:
        machine.start_task()
    for machine in some:
        until(lambda task=machine: task.task.echo(task.gateway), what="a task reaches its node")  # type: ignore[misc]


def fails(source: Space, address: str) -> bool:
    return not source.echo(address, timeout_s=0.3)


@ALL_MODES
def test_tasks_reach_each_other(three: list[Machine], mode: dpb.NetworkMode.ValueType) -> None:
    """Every task every other, with packets as large as its device says, none of which is cut."""
    configure(three, mode)
    start_tasks(three)
    assert {machine.mtu for machine in three} == {1450 if mode == VXLAN else 1500}
    for source in three:
        for target in three:
            assert source.task.echo(target.task_address, size=source.mtu), f"{source.number} → {target.number}"
            assert source.echo(target.task_address, size=source.mtu), f"node {source.number} → {target.number}"
    transfer(three[0].task, three[1].task, three[1].task_address, LARGE_BYTES)
    assert [machine.counter("Ip", "FragCreates") for machine in three] == [0, 0, 0]


@ALL_MODES
def test_the_same_again_changes_nothing(three: list[Machine], mode: dpb.NetworkMode.ValueType) -> None:
    configure(three, mode)
    assert [machine.configure(*three, mode=mode) for machine in three] == [0, 0, 0]


def test_auto_tunnels_only_where_a_router_is_between(make: Callable[..., Machine]) -> None:
    """Who shares a segment is reached by a plain route, who does not by VXLAN; its size then counts for all tasks."""
    with two_segments(make) as some:
        configure(some, AUTO)
        start_tasks(some)
        first, second, third = some
        routes = first.run("ip", "route").splitlines()
        assert [line.split()[2:5] for line in routes if line.startswith(second.subnet)] == [
            [second.address, "dev", "eth0"]
        ]
        assert [line.split()[2:5] for line in routes if line.startswith(third.subnet)] == [
            [third.gateway, "dev", DEVICE]
        ]
        assert {machine.mtu for machine in some} == {1450}
        transfer(first.task, third.task, third.task_address, LARGE_BYTES)
        transfer(third.task, second.task, second.task_address, LARGE_BYTES)
        assert first.task.echo(second.task_address, size=1450)
        assert first.task.echo(third.task_address, size=1450)
        assert not first.task.echo(third.task_address, size=1451, timeout_s=0.3)


def test_auto_follows_a_peer_that_comes_from_afar_and_goes(make: Callable[..., Machine]) -> None:
    """The tunnel is there while a peer needs it, and the largest packet grows and shrinks with it."""
    with two_segments(make) as (first, second, third):
        first.configure(second, mode=AUTO)
        assert (first.mtu, len(first.leftovers())) == (1500, 1)
        first.configure(second, third, mode=AUTO)
        assert (first.mtu, len(first.leftovers())) == (1450, 3)
        first.configure(second, mode=AUTO)
        assert (first.mtu, len(first.leftovers())) == (1500, 1)


def test_routes_leave_out_who_is_on_no_segment_with_the_node(make: Callable[..., Machine]) -> None:
    """One node in the wrong place is no reason to lose the others."""
    with two_segments(make) as (first, second, third):
        first.configure(second, third, mode=ROUTES)
        assert [line.split()[0] for line in first.leftovers()] == [second.subnet]
        assert third.address in first.overlay._unreachable[0]


def test_another_mode_leaves_nothing_of_the_one_before(three: list[Machine]) -> None:
    """Neither the device, nor routes through it; and tasks go on talking."""
    configure(three, VXLAN)
    start_tasks(three)
    assert three[0].task.echo(three[1].task_address)
    configure(three, ROUTES)
    assert three[0].task.echo(three[1].task_address)
    assert not [line for line in three[0].leftovers() if DEVICE in line]
    configure(three, VXLAN)
    assert three[0].task.echo(three[1].task_address)
    assert all(DEVICE in line for line in three[0].leftovers())


def test_a_node_that_left_is_forgotten(three: list[Machine]) -> None:
    """Its route, its neighbour and its forwarding entry go; the others stay as they are."""
    first, second, third = three
    configure(three, VXLAN)
    changes = first.configure(second, mode=VXLAN)
    assert changes == 3, "one route, one neighbour, one forwarding entry"
    everything = first.run("ip", "route") + first.run("ip", "neigh") + first.run("bridge", "fdb")
    assert third.gateway not in everything
    assert third.address not in everything
    first.configure(mode=ROUTES)
    assert first.leftovers() == []


def test_a_node_with_another_address_is_followed(three: list[Machine], lan: Lan, make: Callable[..., Machine]) -> None:
    """A machine that was set up again elsewhere, with the same subnet: only its forwarding entry changes."""
    first, second, third = three
    configure(three, VXLAN)
    moved = make(second.number)
    moved.address = "192.0.2.99"
    machines.join(lan, moved)
    moved.configure(first, third, mode=VXLAN)
    assert first.configure(moved, third, mode=VXLAN) == 2, "the old entry goes, the new one comes"
    assert first.echo(moved.gateway, size=1450)


def test_strangers_on_our_device_are_removed(three: list[Machine]) -> None:
    """Entries that point elsewhere, that flood what is unknown, that nobody asked for; and a route."""
    first, second, third = three
    configure(three, VXLAN)
    hardware = f"02:6f:0a:70:{second.number:02x}:01"
    first.run("bridge", "fdb", "replace", hardware, "dev", DEVICE, "dst", third.address, "self")
    first.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", DEVICE, "dst", third.address, "self")
    first.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", DEVICE, "dst", second.address, "vni", "5", "self")
    first.run("ip", "neigh", "replace", third.gateway, "lladdr", hardware, "dev", DEVICE)
    first.run("ip", "neigh", "add", "10.112.77.1", "lladdr", hardware, "dev", DEVICE, "nud", "permanent")
    first.run("ip", "route", "add", "10.112.77.0/24", "via", second.gateway, "dev", DEVICE, "onlink", "proto", "111")
    assert fails(first, second.gateway)
    first.configure(*three, mode=VXLAN)
    assert first.echo(second.gateway)
    assert first.echo(third.gateway)
    left = first.run("bridge", "fdb", "show", "dev", DEVICE) + first.run("ip", "route") + first.run("ip", "neigh")
    assert "00:00:00:00:00:00" not in left
    assert "10.112.77" not in left
    assert first.configure(*three, mode=VXLAN) == 0


def test_a_device_that_is_not_ours_any_more_is_made_anew(three: list[Machine]) -> None:
    """Another network identifier, a device that learns, one of another kind: all that cannot be changed in place."""
    first, second, _ = three
    configure(three, VXLAN)
    wrong = (
        f"link add {DEVICE} type vxlan id 7 dstport 4789 local {first.address} nolearning",
        f"link add {DEVICE} type vxlan id 7303779 dstport 4789 local {first.address} learning",
        f"link add {DEVICE} type bridge",
    )
    for command in wrong:
        first.ip(f"link del {DEVICE}", command)
        first.configure(*three, mode=VXLAN)
        assert first.echo(second.gateway), command


def test_the_size_is_changed_in_place(three: list[Machine]) -> None:
    """Nobody's packets are lost for it; a device that was put down comes up."""
    first = three[0]
    configure(three, VXLAN)
    before = first.run("ip", "-o", "link", "show", DEVICE).split(":")[0]
    first.configure(*three, mode=VXLAN, mtu=1300)
    first.ip(f"link set {DEVICE} down")
    first.configure(*three, mode=VXLAN, mtu=1300)
    after = first.run("ip", "-o", "link", "show", DEVICE)
    assert first.mtu == 1300
    assert "mtu 1300 " in after
    assert after.split(":")[0] == before
    assert first.echo(three[1].gateway, size=1300)


def test_a_link_that_was_cut_comes_back(three: list[Machine]) -> None:
    """Nothing has to be told to anybody: the way is still written down."""
    first, second, _ = three
    configure(three, VXLAN)
    assert first.echo(second.gateway)
    second.ip("link set eth0 down")
    assert fails(first, second.gateway)
    second.ip("link set eth0 up")
    until(lambda: first.echo(second.gateway, timeout_s=0.3), what="the peer answers again")


@ALL_MODES
def test_a_slow_cable_that_loses_packets_loses_no_byte(
    lan: Lan, make: Callable[..., Machine], mode: dpb.NetworkMode.ValueType
) -> None:
    """5 ms each way and 2 packets of 100 lost; then a cable that is cut in the middle of it, and whole again."""
    first, second = some = [make(1), make(2)]
    machines.join(lan, second)
    wire = Wire()
    with lan.wired(first, f"{first.address}/24", wire):
        until(lambda: first.echo(second.address), what="the cable carries")
        configure(some, mode)
        start_tasks(some)
        wire.delay_s, wire.loss = 0.005, 0.02
        transfer(first.task, second.task, second.task_address, SMALL_BYTES * 5)
        transfer(second.task, first.task, first.task_address, SMALL_BYTES)
        assert wire.lost > 0, "a cable that lost nothing proves nothing"
        wire.loss, wire.is_cut = 0.0, True
        assert fails(first.task, second.task_address)
        wire.is_cut = False
        transfer(first.task, second.task, second.task_address, SMALL_BYTES)


def test_a_router_with_less_room_is_told_to_the_tasks(make: Callable[..., Machine]) -> None:
    """Outer packets are not cut either: path MTU discovery reaches through the tunnel, and transfers go on."""
    near, far = Lan(), Lan()
    between = machines.router(near, far)
    first, second = make(1), make(2, far=True)
    machines.join(near, first)
    machines.join(far, second)
    between.ip("link set eth1 mtu 1400")
    for machine in (first, second):
        machines.default_route(machine)
    configure([first, second], AUTO)
    start_tasks([first, second])
    assert first.task.echo(second.task_address, size=1350)
    assert not first.task.echo(second.task_address, size=1450, timeout_s=0.3)
    transfer(first.task, second.task, second.task_address, LARGE_BYTES)
    assert between.counter("Ip", "FragCreates") == 0
    for space in (between, near, far):
        space.close()


def test_a_device_with_less_room_makes_tasks_smaller(three: list[Machine]) -> None:
    """The largest packet follows the node's device, the next time that anything changes."""
    first = three[0]
    configure(three, VXLAN)
    first.ip("link set eth0 mtu 1400")
    first.configure(*three, mode=VXLAN)
    assert first.mtu == 1350
    assert "mtu 1350 " in first.run("ip", "link", "show", DEVICE)


@pytest.mark.parametrize(
    ("mode", "mtu", "message"),
    [
        (VXLAN, 500, "an MTU of 500 bytes is too small: the least is 576"),
        (VXLAN, 1451, "an MTU of 1451 bytes is too large: 1450 fit, as device eth0 takes 1500, and VXLAN needs 50"),
        (ROUTES, 1501, "an MTU of 1501 bytes is too large: 1500 fit, as device eth0 takes 1500"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_the_numbers(
    three: list[Machine], mode: dpb.NetworkMode.ValueType, mtu: int, message: str
) -> None:
    with pytest.raises(Temporary, match=message):
        three[0].configure(*three, mode=mode, mtu=mtu)
    assert three[0].leftovers() == []


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (
            ["addr add 10.112.200.9/32 dev eth0"],
            "device eth0 has the address 10.112.200.9, which lies in .*10.112.0.0/16",
        ),
        (["route add 10.112.9.0/24 dev eth0"], "the route to 10.112.9.0/24 on device eth0 overlaps .*10.112.0.0/16"),
        (["route add 10.0.0.0/8 dev eth0"], "the route to 10.0.0.0/8 on device eth0 overlaps"),
    ],
)
def test_a_range_that_the_node_uses_itself_is_refused(three: list[Machine], commands: list[str], message: str) -> None:
    """Both are named; and all is well once one of them has gone."""
    first = three[0]
    first.ip(*commands)
    with pytest.raises(Temporary, match=message):
        first.configure(*three, mode=AUTO)
    assert first.leftovers() == []
    first.ip(*(command.replace(" add ", " del ") for command in commands))
    first.configure(*three, mode=AUTO)


def test_a_wider_route_through_a_gateway_is_no_conflict(three: list[Machine]) -> None:
    """Such as the one to a company's whole network: ours are narrower."""
    first = three[0]
    first.ip(f"route add 10.0.0.0/8 via {three[2].address}")
    first.configure(*three, mode=AUTO)
    assert first.leftovers() != [], "there is a way to the others"


def test_an_address_that_the_node_does_not_have_is_named(three: list[Machine]) -> None:
    first = three[0]
    first.address = "192.0.2.200"
    with pytest.raises(Temporary, match=r"no device of this node has the address 192\.0\.2\.200"):
        first.configure(*three, mode=AUTO)
