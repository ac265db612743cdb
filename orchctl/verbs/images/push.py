"""`orchctl image push`: an image's way into the cluster."""

import click

from orchctl import imageoptions, importing, options, phrases, terminal
from protos.orch.v1 import control_pb2 as control


@click.command()
@click.option(
    "--archive",
    type=click.Path(allow_dash=True),
    required=True,
    metavar="FILE",
    help="Send what this archive holds; - is standard input.",
)
@click.option("--name", default="", help="The name to keep it under.  [default: the archive's own]")
@imageoptions.rootfs
@options.with_settings
def command(settings: options.Settings, archive: str, name: str, start: imageoptions.Start) -> None:
    """Send an image to the cluster, which keeps it and hands it to the nodes that need it.

    An archive is one of `docker save`, an OCI layout, or a plain root file system tar. Only a plain tar takes the
    options that say how it starts: other archives have a configuration of their own.

    \b
    Examples:
      docker save hello | orchctl image push --archive -
      orchctl image push --archive rootfs.tar --name hello --cmd "/bin/httpd -f -p 8080" --expose 8080
    """
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
        size, digest = phrases.size(image.status.size), phrases.digest(image.status.digest)
        terminal.say(f"image/{image.meta.name} pushed ({digest}, {size})")
