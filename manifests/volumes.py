"""Rules of a task's volumes, and of the places where its containers mount them.

Two rules: every volume is mounted by somebody, and nothing of a container is in one place with something else.
"""

from collections.abc import Iterator, Sequence

from manifests import isolation, quoting, suggest
from manifests.paths import Path
from manifests.problems import Problem
from protos.orch.v1 import objects_pb2 as pb


def template_problems(template: pb.TaskTemplate, path: Path) -> Iterator[Problem]:
    """What is wrong between the volumes of a task and those who mount them.

    A volume without a name may be the one that an unknown mount means, and a mount that means none the one of a volume
    that nobody mounts: what follows from another mistake is not told.
    """
    names = [volume.name for volume in template.volumes]
    mounts = list(_mounts(template, path))
    for here, mount in mounts:
        if mount.volume and mount.volume not in names and "" not in names:
            yield _unknown(mount.volume, names, (*here, "volume"))
    mounted = {mount.volume for _, mount in mounts}
    for index, name in enumerate(names):
        here = (*path, "volumes", index)
        if name in names[:index]:
            message = f"{quoting.shown(name)} is the name of volumes[{names.index(name)}]"
            yield Problem(keys=(*here, "name"), message=message, hint="give it another name, or remove it")
        elif name not in mounted and mounted <= {*names} - {""}:
            hint = f"write `mounts: [{{volume: {quoting.shown(name)}, path: /FOLDER}}]` in one, or remove it"
            yield Problem(keys=here, message="no container mounts it", hint=hint)


def container_problems(container: pb.Container, path: Path) -> Iterator[Problem]:
    """What is wrong with the places where a container has its volumes."""
    taken = {folder: f"tmpfs[{quoting.shown(folder)}]" for folder in container.tmpfs}
    for index, mount in enumerate(container.mounts):
        here = (*path, "mounts", index, "path")
        if not mount.path:
            continue
        message, hint = isolation.folder_problem(mount.path)
        if message:
            yield Problem(keys=here, message=message, hint=hint)
        elif mount.path in taken:
            message = f"{quoting.shown(mount.path)} is the place of {taken[mount.path]}"
            yield Problem(keys=here, message=message, hint="choose another folder")
        elif inner := [one for one in isolation.TAKEN if mount.read_only and one.startswith(f"{mount.path}/")]:
            message = f"the system mounts {inner[0]} inside it, so it has to be writable"
            yield Problem(keys=here, message=message, hint="remove readOnly, or choose another folder")
        taken.setdefault(mount.path, f"mounts[{index}]")
    yield from _in_read_only(container, path)


def _in_read_only(container: pb.Container, path: Path) -> Iterator[Problem]:
    """A place in a volume is made by whoever mounts there, which takes that it can be written."""
    locked = [mount.path for mount in container.mounts if mount.read_only and mount.path]
    places = [
        *(((*path, "mounts", index, "path"), mount.path) for index, mount in enumerate(container.mounts)),
        *(((*path, "tmpfs", folder), folder) for folder in sorted(container.tmpfs)),
    ]
    for here, place in places:
        for above in locked:
            if place.startswith(f"{above}/"):
                message = f"{quoting.shown(place)} is inside {quoting.shown(above)}, which is read-only here"
                hint = "choose a folder outside, or mount that one without readOnly"
                yield Problem(keys=here, message=message, hint=hint, at_key="tmpfs" in here)


def _mounts(template: pb.TaskTemplate, path: Path) -> Iterator[tuple[Path, pb.Mount]]:
    """All mounts of all containers, each with its path."""
    containers = [((*path, "container"), template.container)]
    for part, members in (("init", template.init), ("sidecars", template.sidecars)):
        containers += [((*path, part, index), one) for index, one in enumerate(members)]
    for here, one in containers:
        yield from (((*here, "mounts", index), mount) for index, mount in enumerate(one.mounts))


def _unknown(name: str, names: Sequence[str], path: Path) -> Problem:
    shown = quoting.shown(name)
    known = f"known are {', '.join(map(quoting.shown, names))}" if names else ""
    hint = suggest.did_you_mean(name, names) or known or f"write `volumes: [{{name: {shown}}}]` beside `container`"
    return Problem(keys=path, message=f"the task has no volume {shown}", hint=hint)
