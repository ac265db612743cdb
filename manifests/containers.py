"""Rules of the containers of one task: those around the main one, hooks, and values that the agent fills in.

The containers of a task share its network and its users, so what is said about those is said once, in the main one.
"""

from collections.abc import Iterator
from typing import Final

from manifests import defaults, networking, quoting, suggest
from manifests.paths import Path
from manifests.problems import Problem
from protos import containers, placeholders, units
from protos.orch.v1 import objects_pb2 as pb
from protos.orch.v1 import options_pb2 as options

_GRACE: Final = pb.TaskTemplate.DESCRIPTOR.fields_by_name["stop_grace_period"]
_HOOK_TIMEOUT: Final = pb.Hook.DESCRIPTOR.fields_by_name["timeout"]
SHARED: Final = ("ports", "hostname", "userns")
"""Fields of a container that are about the whole task."""


def template_problems(template: pb.TaskTemplate, path: Path) -> Iterator[Problem]:
    """What is wrong with the containers of a task beside each other."""
    main = template.container
    if main.name not in {"", containers.MAIN}:
        yield Problem(
            keys=(*path, "container", "name"), message=f"the main container is `{containers.MAIN}`", hint="remove it"
        )
    seen: dict[str, str] = {containers.MAIN: "the main container"}
    for part, members in (("init", template.init), ("sidecars", template.sidecars)):
        for index, one in enumerate(members):
            here = (*path, part, index)
            yield from _name(one, seen, f"{part}[{index}]", here)
            yield from _shared(one, here)
            if one.privileged and not (main.privileged or main.userns == pb.USER_NAMESPACE_HOST):
                message = "a privileged container has the users of the node, and this task has its own"
                hint = "write `userns: host` in the main container, or remove it"
                yield Problem(keys=(*here, "privileged"), message=message, hint=hint)
    for index, one in enumerate(template.init):
        yield from _init(one, (*path, "init", index))
    yield from _times(template, path)


def container_problems(container: pb.Container, path: Path) -> Iterator[Problem]:
    """What is wrong with the hooks and values of one container."""
    hooks = container.lifecycle
    if hooks.HasField("post_start"):
        yield from _hook(hooks.post_start, container, (*path, "lifecycle", "postStart"))
    if hooks.HasField("pre_stop"):
        yield from _hook(hooks.pre_stop, container, (*path, "lifecycle", "preStop"))
    for name, value in sorted(container.env.items()):
        yield from _placeholders(value, (*path, "env", name))
    for field, words in (("command", container.command), ("args", container.args)):
        for index, word in enumerate(words):
            yield from _placeholders(word, (*path, field, index))


def _name(one: pb.Container, seen: dict[str, str], place: str, path: Path) -> Iterator[Problem]:
    if not one.name:
        yield Problem(
            keys=(*path, "name"), message="missing", hint="logs and exec call it by its name; write one like migrate"
        )
    elif one.name in seen:
        yield Problem(keys=(*path, "name"), message=f"{quoting.shown(one.name)} is the name of {seen[one.name]}")
    else:
        seen[one.name] = place


def _shared(one: pb.Container, path: Path) -> Iterator[Problem]:
    for field in SHARED:
        if getattr(one, field):
            message = "the containers of a task share its network and users"
            yield Problem(keys=(*path, field), message=message, hint=f"write it in `container.{field}`")


def _init(one: pb.Container, path: Path) -> Iterator[Problem]:
    """Nobody asks it how it is, because it is to end."""
    for field, there in (("probes", one.HasField("probes")), ("lifecycle", one.HasField("lifecycle"))):
        if there:
            message = "an init container runs to its end, so it is neither asked nor told anything"
            yield Problem(keys=(*path, field), message=message, hint="remove it, or make it a sidecar")


def _times(template: pb.TaskTemplate, path: Path) -> Iterator[Problem]:
    """A hook that waits longer than there is time is cut short each time."""
    written = template.HasField("stop_grace_period")
    grace_ms = template.stop_grace_period if written else defaults.number(_GRACE)
    parts = [
        ("container", template.container, ()),
        *(("sidecars", one, (i,)) for i, one in enumerate(template.sidecars)),
    ]
    for part, one, index in parts:
        sleep_ms = one.lifecycle.pre_stop.sleep
        if sleep_ms > grace_ms:
            shown, most = (units.format(options.UNIT_DURATION, value) for value in (sleep_ms, grace_ms))
            yield Problem(
                keys=(*path, part, *index, "lifecycle", "preStop", "sleep"),
                message=f"{shown} is longer than stopGracePeriod, {most}, which it is part of",
                hint="raise stopGracePeriod, or wait less",
            )


def _hook(hook: pb.Hook, container: pb.Container, path: Path) -> Iterator[Problem]:
    said = {"exec": hook.HasField("exec"), "http": hook.HasField("http"), "sleep": hook.sleep > 0}
    done = [word for word, there in said.items() if there]
    if len(done) != 1:
        found = f"has {' and '.join(done)}, and a hook does one thing" if done else "does nothing"
        yield Problem(keys=path, message=found, hint="write exactly one of exec, http and sleep", of_nothing=not done)
    elif hook.sleep and hook.timeout not in {0, defaults.number(_HOOK_TIMEOUT)}:
        # What everybody has who does not say it stands in whatever the defaults were filled into.
        message = "a hook that sleeps takes as long as it says"
        yield Problem(keys=(*path, "timeout"), message=message, hint="remove it, and say in sleep how long")
    if hook.http.port:
        yield from networking.port_problems(hook.http.port, container.ports, (*path, "http", "port"))


def _placeholders(text: str, path: Path) -> Iterator[Problem]:
    for name in placeholders.unknown(text):
        known = [*placeholders.NAMES, f"{placeholders.LABELS}NAME"]
        hint = suggest.did_you_mean(name, known) or f"known are {', '.join(known)}"
        yield Problem(
            keys=path,
            message=f"there is no ${{{quoting.shown(name)[1:-1]}}}",
            hint=f"{hint}; $${{ stands for a ${{ of its own",
        )
