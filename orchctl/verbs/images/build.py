"""`orchctl image build`: an image from a Dockerfile, on this machine."""

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchctl import amounts, buildview, errors, options, stores, terminal

if TYPE_CHECKING:
    from images.build.context import Context
    from images.store import ImageStore

STATE = Path("/run/orch/builds")
_STDIN = "-"
_MAX_SECRET_BYTES = 1 << 20


@click.command()
@click.argument("context", metavar="CONTEXT", type=click.Path(allow_dash=True))
@click.option("-f", "--file", "dockerfile", default="", help="The Dockerfile.  [default: CONTEXT/Dockerfile]")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME", help="A name for the image. May be repeated.")
@click.option(
    "--build-arg", "arguments", multiple=True, metavar="NAME[=VALUE]", help="A value for an ARG. May be repeated."
)
@click.option("--target", default="", metavar="STAGE", help="The stage to build.  [default: the last]")
@click.option("--no-cache", is_flag=True, help="Carry out every step anew.")
@click.option(
    "--platform", default="", metavar="OS/MACHINE", help="Of base images and the result.  [default: this machine's]"
)
@click.option(
    "--network", type=click.Choice(["host", "none"]), default="host", show_default=True, help="What RUN and ADD reach."
)
@click.option(
    "--secret", "secrets", multiple=True, metavar="id=NAME,src=FILE|env=VARIABLE", help="For RUN --mount=type=secret."
)
@click.option("--ssh", default="", hidden=True)
@click.option("-q", "--quiet", is_flag=True, help="Print the image's digest only.")
@click.option(
    "--iidfile", type=click.Path(dir_okay=False, path_type=Path), help="Write the image's digest to this file."
)
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), default=STATE, hidden=True)
@options.registries
@options.with_store
def command(
    store: "ImageStore",
    context: str,
    dockerfile: str,
    tags: tuple[str, ...],
    arguments: tuple[str, ...],
    target: str,
    no_cache: bool,
    platform: str,
    network: str,
    secrets: tuple[str, ...],
    ssh: str,
    quiet: bool,
    iidfile: Path | None,
    state: Path,
    registries: Path | None,
) -> None:
    """Build an image from a Dockerfile and the files of CONTEXT, a folder; - is a tar from standard input.

    Base images that are not here are pulled. Commands of RUN run in this project's own runtime, as any container does;
    they use this machine's network unless told otherwise. Steps whose result is known are not carried out again.

    \b
    Examples:
      orchctl image build -t web:1 .
      orchctl image build -t web --build-arg VERSION=2 --target app .
      git archive HEAD | orchctl image build -t web -
      orchctl image build --secret id=token,src=token.txt .
    """
    from images import manifest
    from images.build import builder, workshop
    from orchctl import registering

    if ssh:
        raise errors.InvalidInput("--ssh is not supported", hint="fetch beforehand, or give a key with --secret")
    wanted = workshop.Options(
        target=target,
        build_args=_arguments(arguments),
        secrets=dict(_secret(text) for text in secrets),
        use_cache=not no_cache,
        network=network,
        platform=stores.platform(platform) or manifest.host_platform(),
    )
    with (
        _opened(store, context, dockerfile) as opened,
        _failures_told(quiet=quiet),
        buildview.shown(quiet=quiet) as watcher,
    ):
        pull = functools.partial(registering.fetch, store, path=registries)
        image = builder.build(store, opened, wanted, area=state, names=tags, watcher=watcher, pull=pull)
    if iidfile is not None:
        iidfile.write_text(image.digest)
    if quiet:
        terminal.data(image.digest)
        return
    size = amounts.size(image.size_bytes)
    for name in tags or ("",):
        terminal.say(f"{f'image/{name}' if name else 'image'} built ({amounts.digest(image.digest)}, {size})")


@contextmanager
def _failures_told(*, quiet: bool) -> Iterator[None]:
    """What a command said before it failed is shown line by line, unless it stands above already."""
    from images import errors as image_errors

    try:
        yield
    except image_errors.BuildFailed as error:
        what, _, words = str(error).partition(":\n")
        if words and (quiet or terminal.is_terminal()):
            terminal.note(words)
        raise errors.OrchctlError(what) from error


@contextmanager
def _opened(store: "ImageStore", context: str, dockerfile: str) -> "Iterator[Context]":
    from images.build import context as contexts

    if context == _STDIN:
        if dockerfile == _STDIN:
            raise errors.InvalidInput("both the context and the Dockerfile are standard input", hint="give one a path")
        with contexts.archive(sys.stdin.buffer, store, dockerfile=dockerfile) as found:
            yield found
        return
    text = sys.stdin.buffer.read(contexts.MAX_DOCKERFILE_BYTES + 1) if dockerfile == _STDIN else None
    with contexts.folder(Path(context), dockerfile=dockerfile, text=text) as found:
        yield found


def _arguments(texts: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE`; a lone NAME is this environment's, and nothing where that has none."""
    found: dict[str, str] = {}
    if "SOURCE_DATE_EPOCH" in os.environ:
        found["SOURCE_DATE_EPOCH"] = os.environ["SOURCE_DATE_EPOCH"]
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise errors.InvalidInput(f"--build-arg {text!r}: has no name", hint="write NAME=VALUE")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _secret(text: str) -> tuple[str, bytes]:
    """`id=NAME,src=FILE`, `id=NAME,env=VARIABLE`; with the id alone it is the variable of that name."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    fields["src"] = fields.pop("source", fields.get("src", ""))
    kind = fields.pop("type", "file" if fields["src"] else "env")
    name, source, variable = fields.pop("id", ""), fields.pop("src"), fields.pop("env", "")
    if not name or fields or kind not in {"file", "env"}:
        raise errors.InvalidInput(
            f"--secret {text!r}: cannot be read", hint="write id=NAME,src=FILE or id=NAME,env=VARIABLE"
        )
    if source:
        return name, _read_secret(name, Path(source))
    variable = variable or name
    if variable not in os.environ:
        raise errors.InvalidInput(f"--secret {name}: there is no variable {variable}", hint="set it, or give src=FILE")
    return name, os.environb[os.fsencode(variable)]


def _read_secret(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise errors.InvalidInput(f"--secret {name}: {path}: {error.strerror}") from error
    if len(content) > _MAX_SECRET_BYTES:
        raise errors.InvalidInput(f"--secret {name}: {path} is larger than {_MAX_SECRET_BYTES >> 20} MiB")
    return content
