"""`orchctl commit`: an image out of what a task has changed."""

import time
from typing import TYPE_CHECKING

import click

from orchctl import amounts, complete, errors, options, progressbars, terminal

if TYPE_CHECKING:
    from images.build.committing import Said
    from images.image import Image
    from images.store import ImageStore
    from orchctl.committing import Fetched


@click.command()
@click.argument("task", shell_complete=complete.tasks)
@click.argument("image", metavar="IMAGE")
@click.option(
    "-c",
    "--change",
    "changes",
    multiple=True,
    metavar="INSTRUCTION",
    help="How the image starts, in the words of a Dockerfile, such as `CMD serve` or `ENV A=1`. May be repeated.",
)
@click.option("-m", "--message", default="", help="What the image's history says about it.")
@click.option("-a", "--author", default="", help="Who has made it, such as `Ann <ann@example.org>`.")
@click.option("--container", default="", metavar="NAME", help="This container of the task; the main one when left out.")
@click.option("--running", is_flag=True, help="Read the files while the container runs, instead of pausing it.")
@click.option("--push", is_flag=True, help="Send the image to the cluster as well.")
@options.with_settings
@options.with_store
def command(
    store: "ImageStore",
    settings: options.Settings,
    task: str,
    image: str,
    changes: tuple[str, ...],
    message: str,
    author: str,
    container: str,
    running: bool,
    push: bool,
) -> None:
    """Make an image of a task: the image that it runs, and what its container has changed since it was started.

    The image lands in this machine's store. The container stands still while its files are read, so that they are of
    one moment; it may also have ended, as long as its node has the task. What is mounted in it, folders in memory among
    that, is no part of the image. The image starts as the one below it does, but for --change: environment and command
    of the service are the service's.

    \b
    Examples:
      orchctl commit web-1-k7x2m9q4 web:fixed
      orchctl commit web-1-k7x2m9q4 web:fixed -c 'CMD ["httpd", "-f"]' -m "with the missing page" --push
    """
    from images import reference
    from images.build import committing as making
    from orchctl import committing, pushing
    from protos.orch.v1 import control_pb2 as control

    ref = _checked(image)
    if push and reference.names_registry(image):
        raise errors.InvalidInput(
            f"{image} names a registry, and the cluster is none", hint=f"leave --push out; `orchctl image push {image}`"
        )
    making.read_changes(changes)  # a mistake is told before anything stands still
    start = control.CommitStart(
        namespace=settings.namespace, task=task.removeprefix("task/"), container=container, running=running
    )
    with progressbars.shown() as watcher:
        with store.hold():
            found = committing.fetch(settings.server, store, start, watcher)
            source = f"orchctl commit {settings.namespace}/{found.task}"
            said = making.Said(changes=changes, author=author, message=message, source=source)
            made = _add(store, found, ref, said)
        if push:
            pushing.push(settings.server, store, image, watcher)
    size, digest = amounts.size(made.size_bytes), amounts.digest(made.digest)
    terminal.say(f"image/{image} committed{' and pushed' if push else ''} ({digest}, {size})")


def _checked(name: str) -> str:
    from images import reference

    ref = reference.parse(name)
    if ref.digest is not None:
        raise errors.InvalidInput(f"{name} pins a digest, which nobody knows before", hint="leave the digest out")
    return ref.full


def _add(store: "ImageStore", found: "Fetched", name: str, said: "Said") -> "Image":
    from images.build import committing, workshop

    created = workshop.timestamp(int(time.time()))
    return committing.add(store, found.base, found.layer, said=said, created=created, names=(name,))
