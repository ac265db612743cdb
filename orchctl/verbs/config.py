"""`orchctl config`: the context file."""

import click

from orchctl import config, options, tables, terminal, who
from orchctl.errors import OrchctlError


def _complete(_context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    return [name for name in config.load(config.default_path()).contexts if name.startswith(start)]


_name = click.argument("name", shell_complete=_complete)


@click.group()
def command() -> None:
    """Choose the cluster to talk to. The file is ~/.config/orch/config.yaml, or $ORCH_CONFIG."""


@command.command("get-contexts")
def get_contexts() -> None:
    """List the contexts; a star marks the current one."""
    known = config.load(config.default_path())
    rows = [
        [
            "*" if name == known.current else "-",
            terminal.one_line(name),
            terminal.one_line(str(each.get("server", "-"))),
            who.described(known.trust(name)),
        ]
        for name, each in sorted(known.contexts.items())
    ]
    if not rows:
        terminal.note("no contexts")
        return
    for line in tables.table(["CURRENT", "NAME", "SERVER", "USER"], rows):
        terminal.say(line)


@command.command("current-context")
def current_context() -> None:
    """Print the name of the current context."""
    current = config.load(config.default_path()).current
    if not current:
        raise OrchctlError("there is no current context", hint="choose one with `orchctl config use-context NAME`")
    terminal.say(current)


@command.command("use-context")
@_name
def use_context(name: str) -> None:
    """Make a context the current one."""
    path = config.default_path()
    config.save(path, config.load(path).using(name))
    terminal.say(f"context {name} is used now")


@command.command("set-context")
@_name
@options.connection
@click.pass_context
def set_context(ctx: click.Context, name: str) -> None:
    """Add a context, or change its server, which --server names.

    \b
    Example:
      orchctl config set-context home --server 192.168.1.10:7400
    """
    path = config.default_path()
    server = options.settings_of(ctx).server_option
    if not server:
        raise click.UsageError("name the server with --server HOST:PORT", ctx)
    config.save(path, config.load(path).with_context(name, server))
    terminal.say(f"context {name} is set")


@command.command("delete-context")
@_name
def delete_context(name: str) -> None:
    """Remove a context. The cluster itself is left alone."""
    path = config.default_path()
    config.save(path, config.load(path).without_context(name))
    terminal.say(f"context {name} is removed")
