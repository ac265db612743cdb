"""`orchctl login`: a certificate of one's own, for a token."""

import click

from orchctl import options
from orchctl.errors import InvalidInput


@click.command()
@click.option("--token", default="", help="The token, @FILE, or - to read it: arguments are seen by everybody.")
@click.option("--door", default="", metavar="HOST:PORT", help="The door of a control plane.")
@click.option("--renew", is_flag=True, help="Get another certificate for the one that is there, with no token.")
@options.with_settings
def command(settings: options.Settings, token: str, door: str, renew: bool) -> None:
    """Trade a token for a certificate, and use its context from now on.

    --context names the context (else the host of the door), --server where the control plane answers (else the door's
    host and port 7400). The key is made here, and stays here.

    \b
    Examples:
      orchctl login --door 10.0.0.1:7401 --token @token
      echo TOKEN | orchctl login --door 10.0.0.1:7401 --token -
    """
    if renew:
        from orchctl import renewal

        renewal.renew_patiently(settings)
        return
    if not token:
        raise InvalidInput("--token is missing", hint="an admin makes one with `orchctl cluster token create`")
    host, colon, _ = door.rpartition(":")
    if not colon or not host:
        raise InvalidInput(f"--door: not a door's address: {door!r}", hint="write it like 10.0.0.1:7401")
    from orchctl import membership

    membership.login(token, door, settings.server_option, settings.context or host.strip("[]").replace(":", "-"))
