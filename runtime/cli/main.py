"""The command's door: global flags, the table of verbs, and one place where errors become words and an exit code.

Start-up time counts, since a client starts this command four times for each container. So a verb is imported only
when it is called for.
"""

import os
import sys
from importlib import import_module
from typing import Any, Final, NoReturn, Protocol

from runtime import errors, privilege, sealed
from runtime.cli import options, report
from runtime.cli.options import Flag, Options

VERSION: Final = "0.2.0"
DEFAULT_ROOT: Final = "/run/orchrun"

_VERBS: Final = {
    "create": "make a container, up to the moment before its program runs",
    "start": "let a created container run its program",
    "run": "create, start, wait and delete in one",
    "exec": "run a further process in a container",
    "kill": "signal a container (TERM when no signal is named)",
    "delete": "remove what is left of a container",
    "state": "print a container's state",
    "list": "print all containers",
    "ps": "print a container's processes",
    "pause": "freeze a container",
    "resume": "let a paused container go on",
    "update": "change a container's limits",
    "events": "print a container's statistics, again and again",
    "stats": "print a container's statistics once",
    "features": "print what this runtime supports",
    "spec": "write a config.json to begin with",
}

_FLAGS: Final = (
    Flag("--root", value="DIR", help=f"where the containers' state is kept ({DEFAULT_ROOT}; $XDG_RUNTIME_DIR/orchrun)"),
    Flag("--log", value="FILE", help="write errors to this file too"),
    Flag("--log-format", value="FORMAT", help="text or json"),
    Flag("--debug", help="tell more"),
    Flag("--cgroup-manager", value="NAME", help="cgroupfs, systemd or disabled"),
    Flag("--systemd-cgroup", help="the same as --cgroup-manager systemd"),
    Flag("--rootless", value="WORD", help="auto, or whether the caller is not the host's root"),
    Flag("--version", "-v", help="print the version"),
    Flag("--help", "-h", help="print this help"),
)
_HELP: Final = Flag("--help", "-h", help="print this help")


class Context:
    """What every verb needs: where the containers are, where to tell, and who makes the cgroups of new ones."""

    __slots__ = ("manager", "report", "root")

    def __init__(self, root: str, telling: report.Report, *, manager: str) -> None:
        self.root = root
        self.report = telling
        self.manager = manager


class Verb(Protocol):
    """A module in `verbs`."""

    FLAGS: tuple[Flag, ...]
    ARGUMENTS: str
    WORDS_END_FLAGS: bool

    def run(self, context: Context, given: Options) -> int:
        """Do it; returns the exit code."""


def main() -> NoReturn:
    """Run the command that the arguments name."""
    telling = report.Report()
    given = Options(())
    try:
        given = options.parse(_FLAGS, sys.argv[1:], words_end_flags=True)
        telling = report.Report(given.text("--log"), given.text("--log-format", "text"), debug=given.on("--debug"))
        code = _dispatch(given, telling)
    except errors.ContainerError as error:
        telling.error(error)
        code = _failure(given)
    except OSError as error:
        telling.error(errors.SetupFailed.at("orchrun", error))
        code = _failure(given)
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.exit(code)


def _failure(given: Options) -> int:
    """Callers of `exec` must tell our failures from the program's own exit code 1, as with runc."""
    return 255 if given.words[:1] == ["exec"] else 1


def _dispatch(given: Options, telling: report.Report) -> int:
    if given.on("--version"):
        from runtime import state  # only here: what a verb does not need, it does not wait for

        sys.stdout.write(f"orchrun version {VERSION}\nspec: {state.SPECIFICATION}\n")
        return 0
    if not given.words or given.on("--help"):
        sys.stdout.write(_usage())
        return 0 if given.on("--help") else 1
    name, *arguments = given.words
    if name not in _VERBS:
        raise errors.InvalidSpec(f"{name}: no such verb; use one of {', '.join(_VERBS)}")
    context = _context(given, telling)
    assert name not in sealed.NEEDED_BY or sealed.is_sealed(), "a process of a container could reach our interpreter"
    verb: Any = import_module(f"runtime.cli.verbs.{name}")
    return _run(name, verb, arguments, context)


def _run(name: str, verb: Verb, arguments: list[str], context: Context) -> int:
    flags = (*verb.FLAGS, _HELP)
    options_of_verb = options.parse(flags, arguments, words_end_flags=verb.WORDS_END_FLAGS)
    if options_of_verb.on("--help"):
        sys.stdout.write(f"orchrun {name} {verb.ARGUMENTS}: {_VERBS[name]}\n\n{options.describe(flags)}")
        return 0
    context.report.debug(f"{name} {' '.join(arguments)}")
    return verb.run(context, options_of_verb)


def _context(given: Options, telling: report.Report) -> Context:
    style = given.text("--log-format", "text")
    if style not in {"text", "json"}:
        raise errors.InvalidSpec(f"--log-format: {style!r} is none; use text or json")
    manager = "systemd" if given.on("--systemd-cgroup") else given.text("--cgroup-manager", "cgroupfs")
    if manager not in {"cgroupfs", "systemd", "disabled"}:
        raise errors.InvalidSpec(f"--cgroup-manager: {manager!r} is none; use cgroupfs, systemd or disabled")
    _check_rootless(given.text("--rootless", "auto"))
    return Context(given.text("--root") or _default_root(), telling, manager=manager)


def _check_rootless(word: str) -> None:
    """Who calls is seen; the word may say it as well."""
    if word == "auto":
        return
    if word not in {"true", "false"}:
        raise errors.InvalidSpec(f"--rootless: {word!r} is none; use auto, true or false")
    if (word == "true") == privilege.is_host_root():
        raise errors.InvalidSpec(f"--rootless: {word} is not the case; use auto")


def _default_root() -> str:
    """An ordinary user's state is in the folder that is the user's until the next boot."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    if not folder or not os.path.isabs(folder):
        return DEFAULT_ROOT
    return DEFAULT_ROOT if privilege.is_host_root() else f"{folder}/orchrun"


def _usage() -> str:
    verbs = "".join(f"  {name:<9} {summary}\n" for name, summary in _VERBS.items())
    return f"usage: orchrun [flags] verb …\n\n{verbs}\n{options.describe(_FLAGS)}"
