"""The containers around a task's main one, its volumes, and what a service waits for, in lines for people."""

from collections.abc import Mapping

from orchctl import tables
from protos import containers, schema
from protos.orch.v1 import objects_pb2 as pb


def lines(template: pb.TaskTemplate, status: pb.TaskStatus | None = None) -> list[str]:
    """A table of them, in the order of their starts; with their states when a task's status is given."""
    if not template.init and not template.sidecars:
        return []
    known = {one.name: one for one in status.containers} if status is not None else None
    rows = [_row(one, template, known) for one in containers.others(template)]
    titles = ["NAME", "KIND", "IMAGE", "STATE", "RESTARTS"]
    return tables.table(titles if known is not None else titles[:3], rows)


def mounts(template: pb.TaskTemplate) -> list[str]:
    """A table of who has which volume where, in the order of the containers' starts."""
    members = [*containers.others(template), template.container]
    rows = [
        [mount.volume, one.name or containers.MAIN, mount.path, "read" if mount.read_only else "read, write"]
        for one in members
        for mount in one.mounts
    ]
    return tables.table(["VOLUME", "CONTAINER", "PATH", "MAY"], rows) if rows else []


def dependencies(spec: pb.ServiceSpec) -> str:
    """`database ready, migration completed`."""
    condition = pb.DependencyCondition.DESCRIPTOR
    return ", ".join(
        f"{name} {schema.enum_word(condition, wanted)}" for name, wanted in sorted(spec.depends_on.items())
    )


def _row(one: pb.Container, template: pb.TaskTemplate, known: Mapping[str, pb.ContainerStatus] | None) -> list[str]:
    kind = "init" if any(first.name == one.name for first in template.init) else "sidecar"
    cells = [one.name, kind, one.image]
    if known is None:
        return cells
    status = known.get(one.name, pb.ContainerStatus())
    return [*cells, _state(status), str(status.restarts)]


def _state(status: pb.ContainerStatus) -> str:
    if status.running:
        return "running, ready" if status.ready else "running, not ready"
    return f"ended with {status.exit_code}" if status.HasField("exit_code") else "not started"
