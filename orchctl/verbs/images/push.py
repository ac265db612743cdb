"""`orchctl image push`: an image's way into the cluster, or to a registry."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchctl import amounts, complete, errors, imageoptions, importing, options, progressbars, stores, terminal
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from images.store import ImageStore


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=complete.stored_images)
@click.option(
    "--archive",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="Send what this archive holds; - is standard input.",
)
@click.option("--name", default="", help="The name to keep an archive's image under.  [default: the archive's own]")
@imageoptions.rootfs
@options.platform
@options.registries
@options.with_store_path
@options.with_settings
def command(
    settings: options.Settings,
    store: Path,
    names: tuple[str, ...],
    archive: str | None,
    name: str,
    start: imageoptions.Start,
    platform: str,
    registries: Path | None,
) -> None:
    """Send images to the cluster, or to the registry that their name says.

    The cluster keeps an image and hands it to the nodes that need it; no registry is involved. A name says a registry
    as in registry.lan:5000/team/web:1; `orchctl image tag` gives an image such a name. What is there is not sent
    again, and a push that was cut off goes on when it is said again. Of an image for several platforms a registry
    gets all that are here, or the one that --platform says; the cluster gets one.

    An archive is one of `docker save`, an OCI layout, or a plain root file system tar. Only a plain tar takes the
    options that say how it starts: other archives have a configuration of their own.

    \b
    Examples:
      orchctl image push web:1
      orchctl image push registry.lan:5000/team/web:1
      docker save hello | orchctl image push --archive -
      orchctl image push --archive rootfs.tar --name hello --cmd "/bin/httpd -f -p 8080" --expose 8080
    """
    if bool(names) == bool(archive):
        raise errors.InvalidInput("name images of this machine, or one --archive", hint="`orchctl image push --help`")
    if archive is None:
        if name or start != imageoptions.Start():
            raise errors.InvalidInput("--name and how it starts are for an --archive", hint="see `orchctl image tag`")
        for each in names:
            _push(settings, store, each, platform, registries)
        return
    said = click.get_current_context().get_parameter_source("registries")  # the environment is no wish for this one
    if platform or said is click.core.ParameterSource.COMMANDLINE:
        raise errors.InvalidInput("--platform and --registries are for images of this machine", hint="leave them out")
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


def _push(settings: options.Settings, folder: Path, name: str, platform: str, registries: Path | None) -> None:
    from orchctl import pushing, registering

    with stores.opened(folder) as store:
        if registering.says_registry(name):
            digest = registering.push(store, name, platform=platform, path=registries)
            terminal.say(f"{name} pushed ({digest}){_part(store, name, digest, platform)}")
            return
        with progressbars.shown() as watcher:
            image = pushing.push(settings.server, store, name, watcher, platform=stores.platform(platform))
    _say(image)


def _part(store: "ImageStore", name: str, digest: str, platform: str) -> str:
    """What to add when less went than the name stands for, and nobody asked for less."""
    if platform or stores.digest_of(store, name) == digest:
        return ""
    return "; only the image for this machine, since not all that its index lists is here: `pull --all-platforms` it"


def _say(image: pb.Image) -> None:
    size, digest = amounts.size(image.status.size), amounts.digest(image.status.digest)
    terminal.say(f"image/{image.meta.name} pushed ({digest}, {size})")
