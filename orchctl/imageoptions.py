"""How an image that is made of a plain root file system starts, as options of the verbs that make one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from orchctl import arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What was said about the start; empty where nothing was."""

    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    expose: tuple[str, ...] = ()


_OPTIONS = (
    click.option("--cmd", default="", help='Default arguments: words, or a JSON list such as ["sh", "-c", "…"].'),
    click.option("--entrypoint", default="", help="What runs them: words, or a JSON list."),
    click.option("--env", multiple=True, metavar="KEY=VALUE", help="An environment variable. May be repeated."),
    click.option("--workdir", default="", help="The working directory."),
    click.option("--user", default="", help="The user, such as 1000:1000."),
    click.option("--expose", multiple=True, metavar="PORT[/PROTOCOL]", help="A port. May be repeated."),
)


def rootfs(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options, and hands the function what they said as `start`."""

    @functools.wraps(function)
    def run(
        *args: Any,
        cmd: str,
        entrypoint: str,
        env: tuple[str, ...],
        workdir: str,
        user: str,
        expose: tuple[str, ...],
        **rest: Any,
    ) -> None:
        start = Start(
            cmd=tuple(arguments.words(cmd, "--cmd")),
            entrypoint=tuple(arguments.words(entrypoint, "--entrypoint")),
            env=tuple(arguments.environment(env)),
            working_dir=workdir,
            user=user,
            expose=expose,
        )
        function(*args, start=start, **rest)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), run)
