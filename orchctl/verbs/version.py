"""`orchctl version`: what runs here and there."""

import click

from orchctl import client, options, terminal
from protos import release
from protos.orch.v1 import control_pb2 as control


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Do not ask the server.")
@options.with_settings
def command(settings: options.Settings, client_only: bool) -> None:
    """Show the versions of client and server, and who leads."""
    terminal.say(f"client:  orchctl {release.VERSION}")
    if client_only:
        return
    server = settings.server
    with client.connect(server) as stub:
        answer = stub.Version(control.VersionRequest(), timeout=client.CALL_TIMEOUT_S)
    terminal.say(f"server:  {answer.version} ({answer.instance} at {server})")
    leader = f"{answer.leader} at {answer.leader_address}" if answer.leader else "nobody at the moment"
    terminal.say(f"leader:  {leader}")
    store = answer.store_problem or f"fine, at revision {answer.revision}"
    terminal.say(f"store:   {terminal.one_line(store)}")
