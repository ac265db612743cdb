"""`orchctl image import`: one image out of a file."""

from typing import TYPE_CHECKING

import click

from orchctl import amounts, imageoptions, infile, options, progressbars, terminal

if TYPE_CHECKING:
    from images.image import Config
    from images.store import ImageStore


@click.command()
@click.argument("file", type=click.Path(allow_dash=True), metavar="FILE|DIR|-")
@click.option("--name", default="", help="The name to keep it under.  [default: the archive's own]")
@click.option("--select", default="", metavar="NAME", help="Which one, of an archive that holds several.")
@options.platform
@imageoptions.rootfs
@options.with_store
def command(store: "ImageStore", file: str, name: str, select: str, platform: str, start: imageoptions.Start) -> None:
    """Take in one image: an archive of `docker save`, an OCI layout (tar or folder), or a root file system tar.

    `-` is standard input. Only a root file system takes the options that say how it starts: other archives have a
    configuration of their own.

    \b
    Examples:
      orchctl image import rootfs.tar --name hello --cmd "/bin/httpd -f -p 8080" --expose 8080
      skopeo copy docker-archive:web.tar oci:layout:web:1 && orchctl image import layout
    """
    from images import archive
    from orchctl import imagepages, stores

    with infile.opened(file) as source, progressbars.shown() as watcher:
        found = archive.import_archive(
            store,
            source,
            name=name or None,
            select=select or None,
            config=_config(start),
            platform=stores.platform(platform),
            watcher=watcher,
        )
    size = amounts.size(found.size_bytes)
    for each in found.names:
        terminal.say(f"{imagepages.familiar(each)} imported ({amounts.digest(found.digest)}, {size})")
    if not found.names:
        terminal.say(f"{found.digest} imported ({size}); it has no name, give it one with `orchctl image tag`")


def _config(start: imageoptions.Start) -> "Config | None":
    """None when nothing was said, since only a root file system may be told anything."""
    from images import image

    if start == imageoptions.Start():
        return None
    return image.Config(
        cmd=start.cmd,
        entrypoint=start.entrypoint,
        env=start.env,
        working_dir=start.working_dir,
        user=start.user,
        exposed_ports=start.expose,
    )
