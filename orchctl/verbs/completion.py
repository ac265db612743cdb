"""`orchctl completion`: the script that teaches a shell to complete. Click's own machinery answers it."""

import click
from click import shell_completion

from orchctl import terminal

VARIABLE = "_ORCHCTL_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion script.

    \b
    Examples:
      source <(orchctl completion bash)
      orchctl completion zsh > "${fpath[1]}/_orchctl"
      orchctl completion fish > ~/.config/fish/completions/orchctl.fish
    """
    kind = shell_completion.get_completion_class(shell)
    assert kind is not None, f"click does not know {shell}"
    root = ctx.find_root().command
    # Filled here and not by `source()`, which runs the shell to ask for its version.
    filled = kind(root, {}, "orchctl", VARIABLE)
    terminal.say((kind.source_template % filled.source_vars()).rstrip("\n"))
