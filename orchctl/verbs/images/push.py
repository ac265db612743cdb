"""`orchctl image push`: an image's way into the cluster, or to a registry."""

from pathlib import Path

import click

from orchctl import complete, errors, imageoptions, importing, options, phrases, terminal
from protos.orch.v1 import control_pb2 as control


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
    """Send images to a registry, if their names say one; or an archive to the cluster.

    A name says its registry as in registry.lan:5000/team/web:1; `orchctl image tag` gives an image such a name. What
    the registry has is not sent again. Of an image for several platforms all go that are here, or the one that
    --platform says.

    The cluster keeps an archive's image and hands it to the nodes that need it.

    An archive is one of `docker save`, an OCI layout, or a plain root file system tar. Only a plain tar takes the
    options that say how it starts: other archives have a configuration of their own.

    \b
    Examples:
      orchctl image push registry.lan:5000/team/web:1
      docker save hello | orchctl image push --archive -
      orchctl image push --archive rootfs.tar --name hello --cmd "/bin/httpd -f -p 8080" --expose 8080
    """
    if bool(names) == bool(archive):
        raise errors.InvalidInput("name images of this machine, or one --archive", hint="`orchctl image push --help`")
    if archive is None:
        if name or start != imageoptions.Start():
            raise errors.InvalidInput("--name and how it starts are for an --archive", hint="see `orchctl image tag`")
        _push(store, names, platform, registries)
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
        size, digest = phrases.size(image.status.size), phrases.digest(image.status.digest)
        terminal.say(f"image/{image.meta.name} pushed ({digest}, {size})")


def _push(store: Path, names: tuple[str, ...], platform: str, registries: Path | None) -> None:
    from orchctl import registering, stores

    with stores.opened(store) as opened:
        bare = [name for name in names if not registering.says_registry(name)]
        if bare:
            hint = f"`orchctl image tag {bare[0]} HOST/{bare[0]}` gives it such a name"
            raise errors.InvalidInput(f"{bare[0]!r} does not say a registry", hint=hint)
        for name in names:
            digest = registering.push(opened, name, platform=platform, path=registries)
            terminal.say(f"{name} pushed ({digest})")
