"""The examples work as they stand: they are the first thing that people copy."""

from pathlib import Path

import pytest

import manifests
from protos.orch.v1 import objects_pb2 as pb

FOLDER = Path(manifests.__file__).parent / "examples"
EXAMPLES = sorted(FOLDER.rglob("*.yaml"))


def read(path: Path) -> manifests.Manifest:
    return manifests.read([manifests.Source(name=path.name, text=path.read_bytes())])


def test_there_are_ten_or_more() -> None:
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_shows_and_is_right(path: Path) -> None:
    assert path.read_text().startswith("# "), f"{path.name}: begin with a comment that says what it shows"
    assert read(path).objects


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_survives_being_stored_and_printed(path: Path) -> None:
    """Applying what `get -o yaml` prints changes nothing."""
    for value in read(path).objects:
        stored = type(value).FromString(value.SerializeToString())
        printed = manifests.to_yaml(stored).encode()
        (again,) = manifests.read([manifests.Source(name="printed", text=printed)]).objects
        assert again == value
        assert manifests.changes(value, again) == ()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_still_right_with_its_defaults(path: Path) -> None:
    for value in read(path).objects:
        assert manifests.validate(manifests.resolve(value)) == ()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_uses_images_that_the_demo_brings(path: Path) -> None:
    """An example that needs a registry would fail for a newcomer."""
    services = [value for value in read(path).objects if isinstance(value, pb.Service)]
    assert services or path.parent != FOLDER, "a file that stands alone shows something that runs"
    for value in services:
        assert value.spec.template.container.image in {"hello", "busybox"}


def test_all_examples_can_be_applied_together() -> None:
    """`apply -f manifests/examples` finds no name and no published port twice."""
    sources = [manifests.Source(name=path.name, text=path.read_bytes()) for path in EXAMPLES]
    services = manifests.read(sources).objects
    ports = [
        port.published
        for value in services
        if isinstance(value, pb.Service)
        for port in value.spec.template.container.ports
        if port.published
    ]
    assert len(ports) == len(set(ports))


def test_what_is_merged_and_shared_is_what_it_says() -> None:
    """The example of anchors shows what its comment promises."""
    first, second = read(FOLDER / "anchors.yaml").objects
    assert isinstance(first, pb.Service)
    assert isinstance(second, pb.Service)
    assert second.spec.template.container.env == {"LOG_LEVEL": "debug", "REGION": "north"}
    assert second.spec.template.container.resources == first.spec.template.container.resources


def test_texts_that_look_like_something_else_arrive_as_written() -> None:
    (service,) = read(FOLDER / "environment.yaml").objects
    assert isinstance(service, pb.Service)
    env = service.spec.template.container.env
    assert (env["DEBUG"], env["MODE"], env["RATIO"]) == ("no", "0777", "1e3")
