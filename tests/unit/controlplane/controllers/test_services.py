"""Services get virtual addresses with their first status, and keep them; a range without one left is told."""

import pytest

from controlplane.controllers.services import Services
from controlplane.core import plan
from controlplane.store import typed
from controlplane.store.snapshots import Change, Editor
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

SMALL = "10.201.0.0/29"
"""Six addresses."""


class World:
    """A store that the planner writes to."""

    def __init__(self, range_: str = SMALL, range6: str = "") -> None:
        self._editor = Editor()
        self.planner = Services(build.suffixes(), range_, range6)

    def put(self, value: kinds.StoredObject) -> None:
        key = kinds.key(value)
        version = self._editor.version(key) + 1
        self._editor.replace(kinds.of(value), key, typed.decode(key, typed.encode(value), version))

    def remove(self, name: str) -> set[str]:
        """Removes a service; the keys that the planner then looks at."""
        service = self.service(name)
        change = self._editor.replace(kinds.of(service), kinds.key(service), None)
        assert isinstance(change, Change)
        return set(self.planner.keys_of(change, self._editor.snapshot()))

    def decide(self, *names: str) -> plan.Plan:
        """Plans for these services, and stores the plan."""
        made = self.planner.decide(self._editor.snapshot(), frozenset(f"default/{name}" for name in names), NOW_MS)
        for change in made.changes:
            assert isinstance(change, plan.Write)
            self.put(change.value)
        return made

    def service(self, name: str) -> pb.Service:
        found = self._editor.snapshot().get(pb.Service, name, namespace="default")
        assert found is not None
        return found

    def address(self, name: str) -> str:
        return self.service(name).status.address


def with_port(name: str) -> pb.Service:
    service = build.service(name, replicas=0)
    service.spec.template.container.ports.add(target=80)
    return service


def world(*names: str) -> World:
    made = World()
    for name in names:
        made.put(with_port(name))
    return made


def test_what_was_given_is_written_down_before_whom_it_was_given_to() -> None:
    """A leader that dies between the two has skipped an address and given none twice."""
    here = world("a", "b")
    made = here.decide("a", "b")
    assert isinstance(made.changes[0].value, pb.Cluster)
    assert made.changes[0].value.status.last_service_address == "10.201.0.2"
    assert (here.address("a"), here.address("b")) == ("10.201.0.1", "10.201.0.2")


def test_an_address_stays_whatever_becomes_of_the_service() -> None:
    here = world("a")
    here.decide("a")
    changed = plan.copy(here.service("a"))
    changed.spec.template.container.ClearField("ports")
    changed.spec.replicas = 2
    changed.meta.generation += 1
    here.put(changed)
    here.decide("a")
    assert here.address("a") == "10.201.0.1"
    assert here.service("a").status.observed_generation == changed.meta.generation


def test_a_service_without_ports_gets_none_and_nothing_is_remembered() -> None:
    here = World()
    here.put(build.service("a", replicas=0))
    made = here.decide("a")
    assert not [change for change in made.changes if isinstance(change.value, pb.Cluster)]
    assert here.address("a") == ""


def test_a_full_range_is_told_and_breaks_nothing() -> None:
    """The service runs, without an address; it gets the first one that becomes free."""
    names = [f"s{number}" for number in range(1, 8)]
    here = world(*names)
    here.decide(*names)
    assert here.address("s7") == ""
    assert here.service("s7").status.message.endswith(f"no virtual address: the range {SMALL} has none left")
    assert here.decide("s7") == plan.NOTHING, "what is known is not written again"
    assert here.remove("s3") == {"default/s3", "default/s7"}
    here.decide("s3", "s7")
    assert here.address("s7") == "10.201.0.3"
    assert "no virtual address" not in here.service("s7").status.message


@pytest.mark.parametrize("mode", [pb.ENDPOINT_MODE_VIP, pb.ENDPOINT_MODE_UNSPECIFIED])
def test_a_service_that_changes_to_a_virtual_address_gets_one(mode: "pb.EndpointMode.ValueType") -> None:
    here = World()
    service = with_port("a")
    service.spec.endpoint_mode = pb.ENDPOINT_MODE_DNS
    here.put(service)
    here.decide("a")
    assert here.address("a") == ""
    changed = plan.copy(here.service("a"))
    changed.spec.endpoint_mode = mode
    here.put(changed)
    here.decide("a")
    assert here.address("a") == "10.201.0.1"


def test_who_does_not_get_a_port_says_who_has_it_and_gets_it_in_the_end() -> None:
    """Two applies in the same moment can pass each other."""
    here = World()
    for created_at, name in enumerate(("old", "young")):
        service = build.service(name, replicas=0)
        service.meta.created_at = created_at
        service.spec.template.container.ports.add(target=80, published=8080)
        here.put(service)
    here.decide("old", "young")
    told = "port 8080/tcp is not published: Service default/old is older and has it"
    assert here.service("young").status.message.endswith(told)
    assert told not in here.service("old").status.message
    assert "default/young" in here.remove("old")
    here.decide("young")
    assert told not in here.service("young").status.message


@pytest.mark.parametrize(
    ("range_", "range6", "given"),
    [
        (SMALL, "", ("10.201.0.1", "")),
        (SMALL, "fd00:201::/112", ("10.201.0.1", "fd00:201::1")),
        ("", "fd00:201::/112", ("", "fd00:201::1")),
    ],
)
def test_addresses_are_of_the_families_that_the_cluster_has(range_: str, range6: str, given: tuple[str, str]) -> None:
    here = World(range_, range6)
    here.put(with_port("a"))
    here.decide("a")
    status = here.service("a").status
    assert (status.address, status.address6) == given
    assert here.decide("a") == plan.NOTHING


def test_a_service_gets_its_second_address_when_the_cluster_has_both_families() -> None:
    """It keeps the first one; one range that is full does not keep the other from giving."""
    here = world("a")
    here.decide("a")
    here.planner = Services(build.suffixes(), SMALL, "fd00:201::/125")
    here.decide("a")
    assert (here.address("a"), here.service("a").status.address6) == ("10.201.0.1", "fd00:201::1")
    names = [f"s{number}" for number in range(7)]
    for name in names:
        here.put(with_port(name))
    here.decide(*names)
    last = here.service("s6").status
    assert (last.address, last.address6) == ("", "")
    assert "the range 10.201.0.0/29 has none left" in last.message
    assert "the range fd00:201::/125 has none left" in last.message
