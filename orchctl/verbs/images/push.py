"""`orchctl image push`: an image's way into the cluster."""

from pathlib import Path

import click

from orchctl import errors, imageoptions, importing, options, phrases, progressbars, stores, terminal
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option(
    "--archive",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="Send what this archive holds instead; - is standard input.",
)
@click.option("--name", default="", help="The name to keep an archive's image under.  [default: the archive's own]")
@imageoptions.rootfs
@options.with_store_path
@options.with_settings
def command(
    settings: options.Settings,
    store: Path,
    names: tuple[str, ...],
    archive: str | None,
    name: str,
    start: imageoptions.Start,
) -> None:
    """Send images to the cluster, which keeps them and hands them to the nodes that need them. No registry is involved.

    Layers that the cluster has are not sent, and a push that was cut off goes on where it was when it is said again.

    An archive is one of `docker save`, an OCI layout, or a plain root file system tar. Only a plain tar takes the
    options that say how it starts: other archives have a configuration of their own.

    \b
    Examples:
      orchctl image push web:1
      docker save hello | orchctl image push --archive -
      orchctl image push --archive rootfs.tar --name hello --cmd "/bin/httpd -f -p 8080" --expose 8080
    """
    if bool(names) == bool(archive):
        raise errors.InvalidInput("name images of this machine, or one --archive", hint="`orchctl image push web:1`")
    if archive is None:
        if name or start != imageoptions.Start():
            raise errors.InvalidInput("--name and how it starts are for an --archive", hint="see `orchctl image tag`")
        _push(settings, store, names)
        return
    wanted = control.ImportImageOptions(
        name=name,
        cmd=start.cmd,
        entrypoint=start.entrypoint,
        env=start.env,
        working_dir=start.working_dir,
        user=start.user,
        expose=start.expose,
    )
    for image in importing.send(settings.server, archive, wanted):
        _say(image)


def _push(settings: options.Settings, folder: Path, names: tuple[str, ...]) -> None:
    from orchctl import pushing

    with stores.opened(folder) as store:
        for each in names:
            with progressbars.shown() as watcher:
                image = pushing.push(settings.server, store, each, watcher)
            _say(image)


def _say(image: pb.Image) -> None:
    size, digest = phrases.size(image.status.size), phrases.digest(image.status.digest)
    terminal.say(f"image/{image.meta.name} pushed ({digest}, {size})")
