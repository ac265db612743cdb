"""`orchctl image`: the images on this machine, and their ways to other places. The table of its verbs."""

from collections.abc import Mapping

import click

from orchctl.lazy import LazyGroup, Verb

VERBS: Mapping[str, Verb] = {
    "build": Verb(module="images.build", summary="Build an image from a Dockerfile."),
    "push": Verb(module="images.push", summary="Send an image to where it will run."),
}


@click.group(cls=LazyGroup, verbs=VERBS)
def command() -> None:
    """Keep images on this machine, and send them where they run.

    They live in a store of this machine's, /var/lib/orch/images; no cluster is needed. Those that a cluster has are
    listed by `orchctl get images` and removed by `orchctl delete image/NAME`.

    \b
    Examples:
      docker save hello | orchctl image push --archive -
    """
