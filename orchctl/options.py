"""Options that many verbs share. They are understood before and after the verb; the one after it wins."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from orchctl import config, servers, stores, terminal, who
from orchctl.errors import InvalidInput, OrchctlError

if TYPE_CHECKING:
    from images.store import ImageStore

MOST = 2**32 - 1
"""The largest number that requests have room for."""

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was said about which control plane and which namespace."""

    server_option: str = ""
    context: str = ""
    namespace_option: str = ""
    all_namespaces: bool = False

    @property
    def server(self) -> str:
        """The address to talk to."""
        return config.choose_server(server=self.server_option, context=self.context)

    @property
    def _chosen(self) -> tuple[config.Config, str]:
        """The file's content, and the context that decides about the server; empty when none does."""
        loaded = config.load(config.default_path())
        named = self.server_option or (not self.context and os.environ.get("ORCH_SERVER"))
        name = "" if named else self.context or loaded.current
        return loaded, name if name in loaded.contexts else ""

    def known_servers(self) -> Sequence[str]:
        """The control planes that stand for the server; none when it was named by its address."""
        loaded, name = self._chosen
        return loaded.servers(name) if name else ()

    def keep_servers(self, told: Sequence[str]) -> None:
        """Writes down what the cluster has told of its control planes. A file that cannot be written stays as it is."""
        loaded, name = self._chosen
        if name and list(told) != list(loaded.servers(name)):
            try:
                config.save(config.default_path(), loaded.with_servers(name, told))
            except OrchctlError as error:
                terminal.note(f"the addresses of the other control planes were not kept: {error}")

    @property
    def trust(self) -> Path | None:
        """The folder with what one is known by."""
        return config.choose_trust(context=self.context)

    @property
    def namespace(self) -> str:
        """The one namespace to work in."""
        if self.all_namespaces:
            raise InvalidInput("--all-namespaces works with `get` only", hint="name one with --namespace")
        return self.namespace_option or "default"


def settings_of(context: click.Context) -> Settings:
    """What the options said, before and after the verb."""
    said = context.find_root().ensure_object(dict)
    return Settings(
        server_option=said.get("server") or "",
        context=said.get("context") or "",
        namespace_option=said.get("namespace") or "",
        all_namespaces=bool(said.get("all_namespaces")),
    )


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value and parameter.name:
        context.find_root().ensure_object(dict)[parameter.name] = value


def _complete_context(_context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    return [name for name in config.load(config.default_path()).contexts if name.startswith(start)]


def _shared(*names: str, **attributes: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    return click.option(*names, expose_value=False, callback=_remember, **attributes)


_CONNECTION = (
    _shared("--server", metavar="HOST:PORT", help="The control plane to talk to.  [env: ORCH_SERVER]"),
    _shared(
        "--context",
        metavar="NAME",
        help="The context to use, from the context file.",
        shell_complete=_complete_context,
    ),
    _shared("-n", "--namespace", metavar="NAME", help="The namespace to work in.  [default: default]"),
)
_all_namespaces = _shared("-A", "--all-namespaces", is_flag=True, default=None, help="Look in all namespaces.")


def connection(function: Callable[P, R]) -> Callable[P, R]:
    """Adds `--server`, `--context` and `--namespace`."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_CONNECTION), function)


def all_namespaces(function: Callable[P, R]) -> Callable[P, R]:
    """Adds `--all-namespaces`."""
    return _all_namespaces(function)


def with_settings(function: Callable[Concatenate[Settings, P], R]) -> Callable[P, R]:
    """Adds the connection's options, and hands the function the settings as its first argument."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        settings = settings_of(click.get_current_context())
        with who.known_by(lambda: settings.trust), servers.known(settings.known_servers, settings.keep_servers):
            result = function(settings, *args, **kwargs)
            if who.is_aging():
                from orchctl import renewal

                renewal.renew_in_passing(settings)
            return result

    return connection(run)


def files(what: str, *, required: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Adds `-f FILE…`, the `paths` of manifests. `what` opens its line of the help."""
    text = f"{what} May be repeated."
    return click.option("-f", "--file", "paths", metavar="FILE", multiple=True, required=required, help=text)


def with_store(function: Callable[Concatenate["ImageStore", P], R]) -> Callable[P, R]:
    """Adds `--store`, and hands the function this machine's opened image store as its first argument."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        path = click.get_current_context().meta[STORE]
        with stores.opened(path) as store:
            return function(store, *args, **kwargs)

    return _store(run)


def with_store_path(function: Callable[Concatenate[Path, P], R]) -> Callable[P, R]:
    """Adds `--store`, and hands the function its folder: for verbs that may not need a store."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        path: Path = click.get_current_context().meta[STORE]
        return function(path, *args, **kwargs)

    return _store(run)


def _remember_store(context: click.Context, _parameter: click.Parameter, value: Path) -> None:
    context.meta[STORE] = value


STORE = "orchctl.store"
"""Where the context keeps the folder that was chosen."""
_store = click.option(
    "--store",
    type=click.Path(file_okay=False, readable=False, path_type=Path),  # who may not read it hears what to do
    envvar=stores.VARIABLE,
    default=stores.DEFAULT,
    metavar="DIR",
    expose_value=False,
    callback=_remember_store,
    help=f"The folder of the image store.  [default: {stores.DEFAULT}; env: {stores.VARIABLE}]",
)


class Duration(click.ParamType[int]):
    """`90s`, `5m`, `1h30m`: milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from protos import units

        if isinstance(value, int):
            return value
        try:
            return units.parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()

timeout = click.option(
    "--timeout",
    "timeout_ms",
    type=DURATION,
    default="5m",
    show_default=True,
    help="How long to wait.",
)
selector = click.option(
    "-l",
    "--selector",
    "--label",
    "selectors",
    multiple=True,
    metavar="SELECTOR",
    help="Only objects whose labels fit, such as app=web,tier!=test,zone in (a, b),gpu,!old .",
)
detach = click.option("--detach", is_flag=True, help="Return at once, without waiting.")
platform = click.option(
    "--platform", default="", metavar="OS/ARCH", help="Which one, of an image for several.  [default: this machine's]"
)
registries = click.option(
    "--registries",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="ORCH_REGISTRIES",
    metavar="FILE",
    help="What is known about registries.  [default: /etc/orch/registries.yaml; env: ORCH_REGISTRIES]",
)
