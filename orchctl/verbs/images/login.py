"""`orchctl image login`: a user and password for a registry, tried before they are kept."""

import sys
from pathlib import Path

import click

from orchctl import errors, options, registering, terminal

MAX_PASSWORD_SIGNS = 64 << 10


@click.command()
@click.argument("registry", metavar="REGISTRY")
@click.option("-u", "--username", default="", help="Who you are.  [default: it is asked for]")
@click.option("--password-stdin", is_flag=True, help="Read the password, or a token, from standard input.")
@options.registries
def command(registry: str, username: str, password_stdin: bool, registries: Path | None) -> None:
    """Keep a user and password for a registry, once it has accepted them.

    They go where Docker keeps them: into the keychain that Docker's configuration names, or else ~/.docker/config.json,
    which only its owner can read. REGISTRY is as in an image's name: registry.lan:5000, or docker.io for Docker Hub.

    \b
    Examples:
      orchctl image login registry.lan:5000
      orchctl image login docker.io -u ada --password-stdin <token
    """
    if not sys.stdin.isatty() and not (username and password_stdin):
        hint = "say --username NAME --password-stdin and give the password on standard input"
        raise errors.InvalidInput("nobody is here to be asked for a user and password", hint=hint)
    user = username or click.prompt("Username", err=True)
    if password_stdin:
        password = sys.stdin.read(MAX_PASSWORD_SIGNS).removesuffix("\n").removesuffix("\r")
    else:
        password = click.prompt("Password", hide_input=True, err=True)
    where = registering.login(registry, user, password, path=registries)
    terminal.say(f"logged in to {registry} (kept by {where})")
