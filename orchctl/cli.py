"""The table of verbs, and the program that they are part of.

`orchctl --help`, a mistyped verb and shell completion of verbs need this table only: no gRPC, protobuf or YAML.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from orchctl import lazy, options
from orchctl.errors import Interrupted, ReaderGone
from orchctl.lazy import Verb

EPILOG = """\b
Examples:
  orchctl cluster up --nodes 3
  orchctl apply -f hello.yaml
  orchctl get services
  orchctl logs hello -f
"""


VERBS: Mapping[str, Verb] = {
    "apply": Verb(module="apply", section="Manifests", summary="Make or change what the manifests describe."),
    "diff": Verb(module="diff", section="Manifests", summary="Show what an apply would change."),
    "edit": Verb(module="edit", section="Manifests", summary="Change an object in an editor."),
    "explain": Verb(module="explain", section="Manifests", summary="Tell what a field of a manifest means."),
    "get": Verb(module="get", section="Objects", summary="List objects."),
    "describe": Verb(module="describe", section="Objects", summary="Show one object in full, and why it is so."),
    "events": Verb(module="events", section="Objects", summary="Show what has happened, and who did it."),
    "wait": Verb(module="wait", section="Objects", summary="Wait until objects are as they should be."),
    "label": Verb(module="label", section="Objects", summary="Set and remove labels."),
    "annotate": Verb(module="annotate", section="Objects", summary="Set and remove annotations."),
    "scale": Verb(module="scale", section="Objects", summary="Change the number of replicas of services."),
    "rollout": Verb(module="rollout", section="Objects", summary="Follow, pause, promote and take back updates."),
    "restart": Verb(module="restart", section="Objects", summary="Replace the tasks of services by equal ones."),
    "stop": Verb(module="stop", section="Objects", summary="Run nothing of services, and keep them."),
    "start": Verb(module="start", section="Objects", summary="Run services again that were stopped."),
    "delete": Verb(module="delete", section="Objects", summary="Delete objects."),
    "logs": Verb(module="logs", section="Tasks", summary="Show what a service or a task printed."),
    "exec": Verb(module="exec", section="Tasks", summary="Run a command inside a task."),
    "top": Verb(module="top", section="Cluster", summary="Show what services, tasks and nodes carry and use now."),
    "why": Verb(module="why", section="Tasks", summary="Tell why a task is on its node, or on none."),
    "node": Verb(module="node", section="Cluster", summary="List, inspect, pause and drain nodes."),
    "rebalance": Verb(module="rebalance", section="Cluster", summary="Spread services over the nodes again."),
    "network": Verb(module="network", section="Cluster", summary="List networks, and try whether all is reached."),
    "image": Verb(module="images.group", section="Images", summary="Keep images on this machine, and send them."),
    "commit": Verb(module="commit", section="Images", summary="Make an image of what a task has changed."),
    "cluster": Verb(module="cluster", section="Cluster", summary="Found a cluster or start one here; let others in."),
    "login": Verb(module="login", section="Cluster", summary="Trade a token for a certificate of one's own."),
    "config": Verb(module="config", section="This program", summary="Choose the cluster to talk to."),
    "completion": Verb(module="completion", section="This program", summary="Print a shell's completion script."),
    "version": Verb(module="version", section="This program", summary="Show the versions of client and server."),
}


class VerbGroup(lazy.LazyGroup):
    """The program: its help has sections, and it says what ended it."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, verbs=VERBS, **attributes)

    def invoke(self, ctx: click.Context) -> Any:
        # Caught here, because click would answer both with an exit code and a line of its own.
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ReaderGone("nobody reads the output") from error
        except KeyboardInterrupt as error:
            raise Interrupted("") from error
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for section, rows in _sections():
            with formatter.section(section):
                formatter.write_dl(rows, col_max=20)


def _sections() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for section in dict.fromkeys(verb.section for verb in VERBS.values()):
        width = max(len(name) for name in VERBS)
        yield (
            section,
            [(name.ljust(width), verb.summary) for name, verb in VERBS.items() if verb.section == section],
        )


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        from protos import release

        click.echo(f"orchctl {release.VERSION}")
        ctx.exit()


@click.group(cls=VerbGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@options.connection
@options.all_namespaces
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def orchctl() -> None:
    """Say what should run in an Orch cluster, and see what runs."""
