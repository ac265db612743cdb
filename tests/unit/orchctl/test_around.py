"""Containers around the main one and dependencies, as `describe` shows them."""

from orchctl import around
from protos.orch.v1 import objects_pb2 as pb

TEMPLATE = pb.TaskTemplate(
    container=pb.Container(image="web"),
    init=[pb.Container(name="fetch", image="tool"), pb.Container(name="migrate", image="tool")],
    sidecars=[pb.Container(name="proxy", image="envoy:1")],
)


def test_a_task_shows_where_each_of_them_stands() -> None:
    """What has ended, what runs, and what was not started yet."""
    status = pb.TaskStatus(
        containers=[
            pb.ContainerStatus(name="fetch", exit_code=0),
            pb.ContainerStatus(name="migrate", running=True, restarts=3, exit_code=1),
        ]
    )
    assert around.lines(TEMPLATE, status) == [
        "NAME      KIND      IMAGE     STATE                RESTARTS",
        "fetch     init      tool      ended with 0         0",
        "migrate   init      tool      running, not ready   3",
        "proxy     sidecar   envoy:1   not started          0",
    ]


def test_a_service_shows_which_there_are() -> None:
    """And nothing when there are none."""
    assert around.lines(TEMPLATE)[1:] == [
        "fetch     init      tool",
        "migrate   init      tool",
        "proxy     sidecar   envoy:1",
    ]
    assert around.lines(pb.TaskTemplate()) == []


def test_dependencies_are_told_as_they_are_written() -> None:
    """In the words of the manifest."""
    spec = pb.ServiceSpec(
        depends_on={"migration": pb.DEPENDENCY_CONDITION_COMPLETED, "db": pb.DEPENDENCY_CONDITION_READY}
    )
    assert around.dependencies(spec) == "db ready, migration completed"


def test_a_task_shows_who_has_which_volume_where() -> None:
    """A line a mount, in the order of the containers' starts; nothing when there are none."""
    made = pb.TaskTemplate()
    made.CopyFrom(TEMPLATE)
    made.container.mounts.add(volume="work", path="/srv", read_only=True)
    made.init[0].mounts.add(volume="work", path="/work")
    made.sidecars[0].mounts.add(volume="cache", path="/var/cache")
    assert around.mounts(made) == [
        "VOLUME   CONTAINER   PATH         MAY",
        "work     fetch       /work        read, write",
        "cache    proxy       /var/cache   read, write",
        "work     main        /srv         read",
    ]
    assert around.mounts(TEMPLATE) == []
