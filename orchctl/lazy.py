"""Groups that know their verbs from a table, and import a verb's module only when the verb is used.

The rule: help, a mistyped verb and shell completion of verbs need the table only.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """Where a verb is: `module` in `orchctl.verbs` holds its command as `command`."""

    module: str
    summary: str
    section: str = ""


class LazyGroup(click.Group):
    """A group whose commands are the table's, in the table's order."""

    def __init__(self, *args: Any, verbs: Mapping[str, Verb], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        verb = self.verbs.get(cmd_name)
        if verb is None:
            return None
        command = importlib.import_module(f"orchctl.verbs.{verb.module}").command
        assert isinstance(command, click.Command), f"orchctl.verbs.{verb.module}.command is not a command"
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.verbs and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(name, possibilities=list(self.verbs), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in self.verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        named = [(name, verb) for name, verb in self.verbs.items() if name.startswith(incomplete)]
        verbs = [CompletionItem(name, help=verb.summary) for name, verb in named]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]
