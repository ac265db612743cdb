"""What people say of an object, without what the system sets."""

from hypothesis import HealthCheck, given, settings

import manifests
from manifests import wish
from protos.orch.v1 import objects_pb2 as pb
from tests.support import samples
from tests.unit.manifests import strategies


def test_what_the_system_sets_is_left_out() -> None:
    service = samples.service()
    service.spec.stopped = True
    text = wish.text(service)
    for word in ("status", "version", "createdAt", "generation", "stopped", " id:"):
        assert word not in text
    assert "replicas: 3" in text


# A whole service is a lot to draw for a machine that does other things as well.
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.services())
def test_the_wish_of_an_object_says_all_that_people_say(service: pb.Service) -> None:
    """Reading it back loses nothing, and nothing is different from the object itself."""
    mine = wish.of(service)
    assert manifests.changes(service, mine) == ()
    assert wish.difference(service, mine, "it") == ()
    (again,) = manifests.read([manifests.Source(name="wish", text=wish.text(service).encode())]).objects
    assert again == mine


def test_a_difference_shows_what_was_and_what_will_be() -> None:
    before, after = samples.service(asked=3), samples.service(asked=5)
    after.status.ready = 1
    lines = wish.difference(before, after, "service/hello")
    assert lines[:2] == ("--- service/hello (now)", "+++ service/hello (applied)")
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-  replicas: 3", "+  replicas: 5"]
    assert all(line.startswith("+") for line in wish.difference(None, after, "it")[3:])
    assert all(line.startswith("-") for line in wish.difference(after, None, "it")[3:])


def test_the_version_of_an_exported_manifest_is_known_and_no_part_of_the_object() -> None:
    service = samples.service()
    service.meta.version, service.meta.generation = 42, 7
    text = manifests.to_yaml(service)
    (written,) = manifests.read([manifests.Source(name="it", text=text.encode())]).written
    assert written.made_from == (42, 7)
    assert (written.object.meta.version, written.object.meta.generation) == (0, 0)
    (written,) = manifests.read([manifests.Source(name="it", text=wish.text(service).encode())]).written
    assert written.made_from == (0, 0)
