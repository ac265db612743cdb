"""`orchctl image`: the images on this machine, and their ways to other places. The table of its verbs."""

from collections.abc import Mapping

import click

from orchctl.lazy import LazyGroup, Verb

VERBS: Mapping[str, Verb] = {
    "build": Verb(module="images.build", summary="Build an image from a Dockerfile."),
    "ls": Verb(module="images.ls", summary="List the images of this machine."),
    "inspect": Verb(module="images.inspect", summary="Show images in full."),
    "history": Verb(module="images.history", summary="Show how an image was made."),
    "tag": Verb(module="images.tag", summary="Give an image more names."),
    "rm": Verb(module="images.rm", summary="Remove images."),
    "prune": Verb(module="images.prune", summary="Remove what no name leads to, and what is old."),
    "import": Verb(module="images.import_", summary="Take in one image, or make one of a root file system."),
    "load": Verb(module="images.load", summary="Take in all images of an archive."),
    "save": Verb(module="images.save", summary="Write images to an archive."),
    "export": Verb(module="images.export", summary="Write the root file system of an image as a tar."),
    "diff": Verb(module="images.diff", summary="Show what is different between two images."),
    "pull": Verb(module="images.pull", summary="Fetch images from registries."),
    "push": Verb(module="images.push", summary="Send images to the cluster, or to a registry."),
    "login": Verb(module="images.login", summary="Keep a user and password for a registry."),
    "logout": Verb(module="images.logout", summary="Forget a user and password."),
}


@click.group(cls=LazyGroup, verbs=VERBS)
def command() -> None:
    """Keep images on this machine, and send them where they run.

    They live in a store of this machine's, /var/lib/orch/images; no cluster is needed. Those that a cluster has are
    listed by `orchctl get images` and removed by `orchctl delete image/NAME`.

    \b
    Examples:
      docker save hello | orchctl image load
      orchctl image pull docker.io/library/busybox:1.36
      orchctl image ls
      orchctl image save hello:1 -o hello.tar
      orchctl image push hello:1
    """
