"""`hooks`: programs of the host's or the image's to execute at six moments of a container's life."""

from runtime.fields import Fields
from runtime.spec import paths
from runtime.values import frozen

MAX_TIMEOUT_S = 24 * 3600
NAMES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@frozen
class Hook:
    """One program. An empty environment is one without variables; nothing is inherited."""

    path: str
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    timeout_s: int | None = None
    field: str = ""  # where it stands, for messages


@frozen
class Hooks:
    """All of them, in the order in which their moments come."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()

    @property
    def creation(self) -> tuple[Hook, ...]:
        """Those that the creator executes in its own namespaces, once the container's are there."""
        return self.prestart + self.create_runtime


def parse_hooks(config: Fields) -> Hooks:
    """Read `hooks`; raises InvalidSpec."""
    fields = config.maybe_child("hooks")
    if fields is None:
        return Hooks()
    prestart, create_runtime, create_container, start_container, poststart, poststop = (
        _row(fields, name) for name in NAMES
    )
    hooks = Hooks(
        prestart=prestart,
        create_runtime=create_runtime,
        create_container=create_container,
        start_container=start_container,
        poststart=poststart,
        poststop=poststop,
    )
    fields.finish()
    return hooks


def _row(fields: Fields, name: str) -> tuple[Hook, ...]:
    return tuple(_hook(item) for item in fields.children(name))


def _hook(fields: Fields) -> Hook:
    path = paths.absolute(fields, "path")
    hook = Hook(
        path=path,
        args=fields.texts("args") or (path,),
        env=fields.texts("env"),
        timeout_s=fields.maybe_number("timeout", low=1, high=MAX_TIMEOUT_S),
        field=fields.path,
    )
    fields.finish()
    for index, entry in enumerate(hook.env):
        if "=" not in entry[1:]:
            raise fields.refuse(f"env[{index}]", f"{entry!r} must be NAME=value")
    return hook
