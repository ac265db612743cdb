"""`orchctl cluster`: a cluster on this machine (`deploy.local` does the work), and who belongs to one of any size."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from orchctl import admitting, door, options

if TYPE_CHECKING:
    from orchctl import membership

T = TypeVar("T")


def _which(function: Callable[..., T]) -> Callable[..., T]:
    """Adds the options that say which cluster is meant."""
    name = click.option("--name", default="local", show_default=True, help="Which one, when there are several.")
    state = click.option("--state", type=click.Path(path_type=Path), help="Its state folder.")
    return name(state(function))


_FIRST = (
    click.option("--name", default="", help="The control plane's name."),
    click.option("--trust", type=click.Path(path_type=Path), help="The folder for its certificates."),
    click.option("--host", default="", help="Where other machines reach this one.  [default: the host of --server]"),
    click.option("--admin", default="", help="The first admin's name.  [default: yours]"),
    click.option("--etcd", metavar="URL", multiple=True, help="A member of an etcd that is there. May be repeated."),
    click.option("--etcd-ca", metavar="FILE", help="Whom to believe to be one of its members."),
    click.option("--etcd-cert", metavar="FILE", help="The certificate that it knows control planes by."),
    click.option("--etcd-key", metavar="FILE", help="The key of that."),
)


def _first(function: Callable[..., T]) -> Callable[..., T]:
    """Adds the options that say what the first control plane of a cluster is."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_FIRST), function)


def _founding(settings: options.Settings, said: Mapping[str, Any]) -> "membership.Founding":
    """What those options say."""
    from orchctl import membership

    server = settings.server_option
    if not server or not said["name"]:
        raise click.UsageError("with --trust, say --name NAME, and where people reach it with --server HOST:PORT")
    return membership.Founding(
        name=said["name"],
        trust=said["trust"],
        admin=said["admin"],
        host=said["host"] or server.rpartition(":")[0].strip("[]") or server,
        server=server,
        context=settings.context or "default",
        etcd=_about_etcd(said),
    )


def _about_etcd(said: Mapping[str, Any]) -> Sequence[str]:
    """Arguments about an etcd that there is already."""
    files = {name: said[name.replace("-", "_")] for name in ("etcd-ca", "etcd-cert", "etcd-key")}
    return [*(f"--etcd={url}" for url in said["etcd"]), *(f"--{name}={path}" for name, path in files.items() if path)]


def _about_machine(settings: options.Settings, address: str, said: Mapping[str, Any]) -> Sequence[str]:
    """The same for whoever sets this machine up."""
    words = {"--name": said["name"], "--address": address, "--server": settings.server_option}
    words |= {"--admin": said["admin"], "--context": settings.context}
    about = [f"--about-etcd={one}" for one in _about_etcd(said)]
    return [*(f"{key}={text}" for key, text in words.items() if text), *about]


@click.group()
def command() -> None:
    """Found a cluster and let others join it; or start a whole one on this machine, with nodes in namespaces.

    \b
    Examples:
      orchctl cluster init
      orchctl cluster token create --role viewer --person ann
      orchctl cluster up --nodes 3
      orchctl cluster up --ipv6
      orchctl cluster status
      orchctl cluster doctor
      orchctl cluster down
    """


@command.command()
@click.option("--nodes", type=click.IntRange(min=1), default=3, show_default=True, help="How many nodes.")
@click.option(
    "--control-planes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many control planes, each with a member of etcd.",
)
@click.option(
    "--network-mode",
    type=click.Choice(["auto", "routes", "vxlan"]),
    default="auto",
    show_default=True,
    help="How nodes reach each other's tasks.",
)
@click.option("--ipv6", "addresses", flag_value="dual", help="Tasks and services have IPv6 addresses, too.")
@click.option("--ipv6-only", "addresses", flag_value="ipv6", help="They have no others.")
@click.option(
    "--resource",
    "resources",
    metavar="NODE:NAME=ID[,ID…]",
    multiple=True,
    help="Things that a node has a number of, such as n1:gpu=0,1. May be repeated.",
)
@click.option("--owner-pid", type=click.IntRange(min=1), help="Go down when this process ends, however it ends.")
@_which
def up(
    *,
    nodes: int,
    control_planes: int,
    network_mode: str,
    addresses: str | None,
    resources: tuple[str, ...],
    owner_pid: int | None,
    name: str,
    state: Path | None,
) -> None:
    """Start it, wait until its nodes are ready, and make it the current context."""
    given = [f"--resource={resource}" for resource in resources]
    owner = [f"--owner-pid={owner_pid}"] if owner_pid else []
    which = [f"--addresses={addresses}"] if addresses else []
    size = [f"--nodes={nodes}", f"--control-planes={control_planes}"]
    _run("up", name, state, *size, f"--network-mode={network_mode}", *which, *given, *owner)


@command.command()
@_which
def status(name: str, state: Path | None) -> None:
    """Show its processes, nodes and addresses."""
    _run("status", name, state)


@command.command()
@_which
def down(name: str, state: Path | None) -> None:
    """Stop it and remove everything of it."""
    _run("down", name, state)


@command.command()
@click.argument("action", type=click.Choice(["kill", "start"]))
@click.argument("node")
@_which
def node(action: str, node: str, name: str, state: Path | None) -> None:
    """Pull a machine's plug (kill), or put it in again (start): a node's, or a control plane's (cp1)."""
    _run("node", name, state, action, node)


# Who belongs to it ------------------------------------------------------------------------------------------------


@command.command()
@_first
@click.option("--address", default="", help="This machine's own.  [default: the one on its way to others]")
@options.with_settings
def init(settings: options.Settings, /, address: str, **said: Any) -> None:
    """Found a cluster, with this machine as its first control plane. As root, on the machine itself.

    It makes the cluster's root and the first certificates, writes /etc/orch, starts the services, and prints how other
    machines join. --server says where people and nodes reach it, when that is not its address; --context what the
    cluster is called here. A member of etcd runs beside each control plane, unless --etcd names those that there are
    already. A try that did not come to its end may be repeated.

    With --trust only the certificates are made, in that folder, for a control plane that you start.

    \b
    Examples:
      orchctl cluster init
      orchctl cluster init --name cp1 --address 10.0.0.1
      orchctl cluster init --etcd https://10.0.0.9:2379 --etcd-ca ca.pem --etcd-cert orch.pem --etcd-key orch-key.pem
      orchctl cluster init --name cp1 --trust ~/cp1 --server 10.0.0.1:7400
    """
    if said["trust"] is None:
        door.become("deploy.host", "init", *_about_machine(settings, address, said))
    from orchctl import membership

    membership.init(_founding(settings, said))


_of_instance = click.option(
    "--trust",
    default="/var/lib/orch/trust",
    show_default=True,
    type=click.Path(),
    help="The folder of certificates of a control plane.",
)


@command.command()
@_of_instance
@click.option("--out", required=True, type=click.Path(), help="The file to write; there may be none yet.")
def backup(trust: str, out: str) -> None:
    """Write everything that a cluster knows into a file. On the machine of a control plane.

    Whoever has the file is master of the cluster: it holds the key to its roots. Only its owner can read it; keep it
    where nobody else can. Images are not in it.
    """
    door.become("controlplane.trust.backup", f"--trust={trust}", f"--out={out}")


@command.command("recover-admin")
@_of_instance
@click.argument("name", metavar="NAME")
def recover_admin(name: str, trust: str) -> None:
    """Let a person in as an admin where none is left. As root, on the machine of a control plane.

    For when the only admin's certificate has expired or is lost: `cluster token create` needs an admin, and this needs
    the folder of a control plane and an etcd that answers. It makes a token that is good once and for an hour, prints
    what to type next, and is told of in the audit log.

    \b
    Example:
      orchctl cluster recover-admin ann
    """
    door.become("controlplane.trust.recover_admin", f"--trust={trust}", "--", name)


@command.command()
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_first
@click.option("--address", default="", help="This machine's own.  [default: the one on its way to others]")
@options.with_settings
def restore(settings: options.Settings, /, path: Path, address: str, **said: Any) -> None:
    """Make a control plane of a backup, on a machine with none. As root, on the machine itself.

    It makes certificates, writes /etc/orch, starts the services, and waits until the control plane answers. Containers
    run on: agents come to it and tell what they have. What happened after the backup is undone. A try that did not
    come to its end may be repeated.

    With --trust only the certificates are made, in that folder, for a control plane that you start.

    \b
    Examples:
      orchctl cluster restore home.backup
      orchctl cluster restore home.backup --name cp1 --address 10.0.0.9
      orchctl cluster restore home.backup --name cp1 --trust ~/cp1 --server 10.0.0.9:7400
    """
    if said["trust"] is None:
        door.become("deploy.host", "restore", str(path.absolute()), *_about_machine(settings, address, said))
    from orchctl import membership

    membership.restore(_founding(settings, said), path)


@command.command()
@click.option("--token", required=True, help="The token, @FILE, or - to read it: arguments are seen by everybody.")
@click.option("--server", metavar="HOST[:PORT]", default="", help="Where a control plane is reached.")
@click.option("--door", "at", metavar="HOST:PORT", default="", help="Its door.  [default: port 7401 of --server]")
@click.option("--name", default="", help="The new control plane's name.  [default: the host's]")
@click.option("--address", "--host", default="", help="Where others reach it.  [default: on its way to --server]")
@click.option(
    "--trust", type=click.Path(), help="Only get certificates, into this folder of a control plane that you start."
)
def join(*, token: str, server: str, at: str, name: str, address: str, trust: str | None) -> None:
    """Make this machine another control plane, with its member of etcd. As root, on the machine itself.

    A join that did not come to its end may be repeated with the same token. To take it out again:
    orchctl cluster member revoke controlplane:NAME

    \b
    Examples:
      orchctl cluster join --server 10.0.0.1 --token @token
      echo TOKEN | orchctl cluster join --server 10.0.0.1 --token -
      orchctl cluster join --door 10.0.0.1:7401 --token @token --name cp2 --trust ~/cp2
    """
    if trust is None and server:
        said = {"--server": server, "--door": at, "--name": name, "--address": address}
        words = [f"{key}={text}" for key, text in said.items() if text]
        door.become("deploy.host", "controlplane", f"--token={token}", *words)
    if trust is None or not at or not name:
        raise click.UsageError(
            "say where a control plane is with --server HOST; or, to start yours yourself, its door with --door "
            "HOST:PORT, and your --name NAME and --trust DIR"
        )
    where = [f"--host={address}"] if address else []
    door.become(
        "controlplane.trust.join", f"--token={token}", f"--door={at}", f"--name={name}", f"--trust={trust}", *where
    )


command.add_command(admitting.token)
command.add_command(admitting.member)


@command.command()
@click.option("--without-network", is_flag=True, help="Leave out what nodes try among each other.")
@click.option("-o", "--output", "form", type=click.Choice(["json"]), help="The same for programs.")
@options.with_settings
def doctor(settings: options.Settings, *, without_network: bool, form: str | None) -> None:
    """Look at everything that the cluster stands on, and say what to do about what is wrong.

    etcd, instances, nodes and their machines, certificates, clocks, versions, and the network between nodes: a line for
    everything that was looked at, `ok`, `warning` or `failed`. The exit code is 1 when something has failed.
    """
    from orchctl import clusterdoctor

    clusterdoctor.run(settings.server, form=form, without_network=without_network)


@command.command("rotate-ca")
@click.option("--status", is_flag=True, help="Begin none; wait for the one that is under way.")
@click.option("--leave-behind", metavar="MEMBER", multiple=True, help="Do not wait for it; it has to join anew.")
@options.timeout
@options.with_settings
def rotate_ca(settings: options.Settings, *, status: bool, leave_behind: tuple[str, ...], timeout_ms: int) -> None:
    """Exchange the cluster's root: a new one is made and everybody gets a certificate of it; then the old one goes.

    With it go all tokens. Sessions go on. It may be broken off and asked about again with --status.
    """
    from orchctl import renewal

    begin = not status and not leave_behind
    renewal.rotate_root(settings, begin=begin, left_behind=leave_behind, timeout_ms=timeout_ms)


def _run(verb: str, name: str, state: Path | None, *arguments: str) -> NoReturn:
    where = [f"--state={state}"] if state else []
    door.become("deploy.local", verb, f"--name={name}", *where, *arguments)
