"""`orchctl network`: who can reach whom."""

import click

from orchctl import client, complete, network_pages, networkcheck, options, output, queries, terminal, words
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb


@click.group()
def command() -> None:
    """List, inspect and check networks. Tasks reach each other only inside a network that they share.

    \b
    Examples:
      orchctl network ls
      orchctl network inspect back
      orchctl network check
    """


@command.command()
@options.all_namespaces
@options.with_settings
def ls(settings: options.Settings) -> None:
    """List the networks, `default` among them, with how many services and tasks each has."""
    namespace = "" if settings.all_namespaces else settings.namespace
    with client.connect(settings.server) as stub:
        made = queries.objects(stub, control.ListRequest(kind="network", namespace=namespace))
        members = queries.endpoints(stub)
    spaces = {one.meta.namespace for one in (*made, *members)} if settings.all_namespaces else {settings.namespace}
    listed = [*map(network_pages.default_network, spaces), *(one for one in made if isinstance(one, pb.Network))]
    listed.sort(key=lambda one: (one.meta.namespace, one.meta.name))
    output.print_lines(network_pages.networks(listed, members, with_namespace=settings.all_namespaces))


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=complete.networks)
@options.with_settings
def inspect(settings: options.Settings, names: tuple[str, ...]) -> None:
    """Show networks in full: services and tasks in them, their addresses, and who is allowed in."""
    kind = words.kind("network")
    with client.connect(settings.server) as stub:
        members = queries.endpoints(stub)
        for number, name in enumerate(names):
            if name == network_pages.DEFAULT:
                found = network_pages.default_network(settings.namespace)
            else:
                value = queries.find(stub, kind, name, settings.namespace)
                assert isinstance(value, pb.Network), "a network was asked for"
                found = value
            if number:
                terminal.say()
            view = queries.view(stub, {"task"}, terminal.now_ms())
            output.print_lines(network_pages.network(found, members, view))


@command.command()
@click.argument("nodes", nargs=-1, metavar="[NODE…]", shell_complete=complete.nodes)
@click.option("--broken", is_flag=True, help="Show only what does not work.")
@click.option(
    "--timeout",
    "timeout_ms",
    type=options.DURATION,
    default="1s",
    show_default=True,
    help="How long to wait for an answer.",
)
@options.with_settings
def check(settings: options.Settings, nodes: tuple[str, ...], broken: bool, timeout_ms: int) -> None:
    """Let nodes try whether they reach each other, names and services. All nodes, unless some are named.

    Each sends packets as large as tasks may send to every other one, asks its name server for every service, and
    connects to every TCP port of every service that has ready tasks. UDP is tried with a question to each node's name
    server, and with an empty datagram to each UDP port: when nobody answers or refuses it, the result is `unknown`,
    since UDP promises no answer. The exit code is 1 when anything is broken.
    """
    networkcheck.run(settings.server, nodes, timeout_ms=timeout_ms, only_broken=broken)
