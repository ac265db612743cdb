"""The program: runs a verb, turns what went wrong into one line and a hint, and chooses the exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage or an invalid manifest, 130 interrupted; `exec` ends with its command's.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

import click

from orchctl import cli, errors, terminal


def main() -> NoReturn:
    """The entry point of `orchctl`."""
    # gRPC's own remarks on broken connections are for its developers; what matters comes as an error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    sys.stdout, sys.stderr = _reopened(sys.stdout), _reopened(sys.stderr)
    sys.exit(run(sys.argv[1:]))


def _reopened(stream: TextIO | None) -> TextIO:
    """Writes any text, whatever the encoding; and all of it: under PYTHONUNBUFFERED the rest of a write that the
    system took in part would be lost without a word. A stream that was closed from the start leads nowhere."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    return open(stream.fileno(), "w", encoding=stream.encoding, errors="backslashreplace", closefd=False)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; the exit code."""
    try:
        return _invoke(arguments)
    except errors.ReaderGone as error:
        _forget_output()
        return error.exit_code
    except errors.OrchctlError as error:
        _tell(error)
        return error.exit_code
    except click.UsageError as error:
        _tell(_usage(error))
        return errors.USAGE
    except click.ClickException as error:
        _tell(errors.OrchctlError(error.format_message()))
        return error.exit_code
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except OSError as error:  # what has a name was told by whoever opened it; left is the output, on a full disk
        _forget_output()
        _tell(errors.OrchctlError(f"cannot write the output: {error.strerror or error}"))
        return errors.FAILED


def _invoke(arguments: Sequence[str]) -> int:
    try:
        result = cli.orchctl.main(list(arguments), prog_name="orchctl", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return errors.USAGE
    return result if isinstance(result, int) else 0


def _usage(error: click.UsageError) -> errors.OrchctlError:
    command = error.ctx.command_path if error.ctx else "orchctl"
    message = error.format_message().rstrip(".") if "?" not in error.format_message() else error.format_message()
    return errors.InvalidInput(message[:1].lower() + message[1:], hint=f"see `{command} --help`")


def _tell(error: errors.OrchctlError) -> None:
    for line in error.details:
        terminal.note(line)
    if error.message:
        terminal.note(f"orchctl: {terminal.one_line(error.message)}")
    if error.hint:
        terminal.note(f"hint: {terminal.one_line(error.hint)}")


def _forget_output() -> None:
    """What is still buffered goes nowhere, so that the interpreter's last flush does not fail, too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
