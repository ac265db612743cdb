"""`orchctl cluster token` and `cluster member`: what one joins with, and who has joined."""

import click

from orchctl import options


@click.group()
def token() -> None:
    """What machines and people join with."""


@token.command("ls")
@options.with_settings
def token_ls(settings: options.Settings) -> None:
    """List the tokens. Nobody can see their text any more."""
    from orchctl import membership

    membership.list_tokens(settings)


@token.command("create")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["node", "controlplane", "admin", "editor", "viewer"]),
    help="What it makes.",
)
@click.option("--person", default="", help="Who it is for, when it is for a person.")
@click.option("--for", "namespaces", metavar="NAMESPACE", multiple=True, help="Bind the person to it. May be repeated.")
@click.option(
    "--expires", type=options.DURATION, default="24h", show_default=True, help="How long it is good; 0s: for ever."
)
@click.option(
    "--uses",
    type=click.IntRange(min=0, max=options.MOST),
    default=0,
    help="How many may join with it.  [default: any number]",
)
@options.with_settings
def token_create(
    settings: options.Settings, *, role: str, person: str, namespaces: tuple[str, ...], expires: int, uses: int
) -> None:
    """Make a token, and print it this once."""
    from orchctl import membership
    from protos.orch.v1 import trust_pb2 as pb

    request = pb.CreateTokenRequest(role=role, person=person, namespaces=namespaces, lifetime=expires, uses=uses)
    membership.create_token(settings, request)


@token.command("rotate")
@click.argument("token_id", metavar="ID")
@options.with_settings
def token_rotate(settings: options.Settings, token_id: str) -> None:
    """Make an equal token, and the old one worthless, in one moment."""
    from orchctl import membership

    membership.rotate_token(settings, token_id)


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@options.with_settings
def token_revoke(settings: options.Settings, token_id: str) -> None:
    """Make a token worthless. Who has joined with it stays."""
    from orchctl import membership

    membership.revoke_token(settings, token_id)


@click.group()
def member() -> None:
    """Everybody who holds a certificate: nodes, control planes, people."""


@member.command("ls")
@options.with_settings
def member_ls(settings: options.Settings) -> None:
    """List them."""
    from orchctl import membership

    membership.list_members(settings)


@member.command("revoke")
@click.argument("name", metavar="MEMBER")
@options.with_settings
def member_revoke(settings: options.Settings, name: str) -> None:
    """Put somebody out: what they have open ends, and their certificates are worth nothing.

    MEMBER is as `member ls` has it, such as node:k3f0…, controlplane:cp2 or person:ann.
    """
    from orchctl import membership

    membership.revoke_member(settings, name)
