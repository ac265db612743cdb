"""`orchctl scale`: another number of replicas."""

import re
from collections.abc import Sequence

import click

from orchctl import client, complete, errors, options, terminal, waiting, words
from orchctl.progress import Target
from protos.orch.v1 import control_pb2 as control

_MOST = 2**32 - 1


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="SERVICE=N…", shell_complete=complete.services)
@options.detach
@options.timeout
@options.with_settings
def command(settings: options.Settings, targets: tuple[str, ...], detach: bool, timeout_ms: int) -> None:
    """Change the number of replicas of services, then wait until they are there.

    \b
    Examples:
      orchctl scale hello=9
      orchctl scale hello 9
      orchctl scale web=3 worker=0 --detach
    """
    wanted = parse(targets)
    scaled = []
    with client.connect(settings.server) as stub:
        for name, replicas in wanted.items():
            reference = control.ObjectReference(kind="service", namespace=settings.namespace, name=name)
            request = control.ScaleRequest(reference=reference, replicas=replicas)
            response = stub.Scale(request, timeout=client.CALL_TIMEOUT_S)
            terminal.say(f"service/{name} scaled: {response.before} → {replicas}")
            scaled.append(Target.of(response.service))
    if not detach:
        waiting.until_settled(settings.server, scaled, timeout_ms)


def parse(targets: Sequence[str]) -> dict[str, int]:
    """`hello=9 web=2`, or `hello 9` → the numbers by name."""
    if len(targets) == 2 and "=" not in targets[0] and targets[1].isdigit():
        targets = [f"{targets[0]}={targets[1]}"]
    wanted: dict[str, int] = {}
    for target in targets:
        match = re.fullmatch(r"([^=]+)=([0-9]{1,10})", target, re.ASCII)
        if match is None or int(match[2]) > _MOST:
            raise errors.InvalidInput(f"not a service and a number: {target!r}", hint="write it like hello=3")
        name = words.service_name(match[1])
        if name in wanted:
            raise errors.InvalidInput(f"service {name!r} is named twice")
        wanted[name] = int(match[2])
    return wanted
