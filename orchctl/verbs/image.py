"""`orchctl image`: the images that the cluster itself keeps."""

import click

from orchctl import client, complete, importing, options, output, phrases, terminal, words
from orchctl.verbs import get
from protos.orch.v1 import control_pb2 as control


@click.group()
def command() -> None:
    """Import, list and remove the cluster's images.

    \b
    Examples:
      docker save hello | orchctl image import -
      orchctl image import rootfs.tar --name hello --cmd "/bin/httpd -f -p 8080" --expose 8080
      orchctl image ls
    """


@command.command("import")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--name", default="", help="The name to keep it under.  [default: the archive's own]")
@click.option("--cmd", default="", help='Default arguments: words, or a JSON list such as ["sh", "-c", "…"].')
@click.option("--entrypoint", default="", help="What runs them: words, or a JSON list.")
@click.option("--env", multiple=True, metavar="KEY=VALUE", help="An environment variable. May be repeated.")
@click.option("--workdir", default="", help="The working directory.")
@click.option("--user", default="", help="The user, such as 1000:1000.")
@click.option("--expose", multiple=True, metavar="PORT[/PROTOCOL]", help="A port. May be repeated.")
@options.with_settings
def import_(
    settings: options.Settings,
    file: str,
    name: str,
    cmd: str,
    entrypoint: str,
    env: tuple[str, ...],
    workdir: str,
    user: str,
    expose: tuple[str, ...],
) -> None:
    """Take in an archive: of `docker save`, an OCI layout, or a plain root file system tar. `-` is standard input.

    Only a plain tar takes the options beside --name: other archives have a configuration of their own.
    """
    wanted = control.ImportImageOptions(
        name=name,
        cmd=importing.words(cmd, "--cmd"),
        entrypoint=importing.words(entrypoint, "--entrypoint"),
        env=importing.environment(env),
        working_dir=workdir,
        user=user,
        expose=expose,
    )
    for image in importing.send(settings.server, file, wanted):
        size, digest = phrases.size(image.status.size), phrases.digest(image.status.digest)
        terminal.say(f"image/{image.meta.name} imported ({digest}, {size})")


@command.command()
@output.option
@options.with_settings
def ls(settings: options.Settings, form: str | None) -> None:
    """List the images."""
    get.show(settings, get.Query(what=("image",), form=form or ""))


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=complete.images)
@options.with_settings
def rm(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Remove images from the cluster. Tasks that run from them go on."""
    with client.connect(settings.server) as stub:
        for kind, name in words.split_references(("image", *names)):
            reference = control.ObjectReference(kind=kind.name, name=name)
            stub.Delete(control.DeleteRequest(reference=reference), timeout=client.CALL_TIMEOUT_S)
            terminal.say(f"image/{name} removed")
