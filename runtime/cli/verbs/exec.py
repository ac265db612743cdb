"""`orchrun exec`: a further process in a container, from a file with a `process` object or from arguments."""

import os
from typing import Any

from runtime import control, errors, syscalls, unattendedexec
from runtime.cli import bundle, foreground, making
from runtime.cli.main import Context
from runtime.cli.options import Flag, Options

FLAGS = (
    *making.FLAGS,
    Flag("--process", "-p", value="FILE", help="the specification's process object; then no program is named"),
    Flag("--detach", "-d", help="leave the process running, and return"),
    Flag("--tty", "-t", help="give it a terminal"),
    Flag("--user", "-u", value="USER", help="run it as UID, UID:GID or a name of the container"),
    Flag("--additional-gids", "-g", value="GID", many=True, help="a further group"),
    Flag("--cwd", value="DIR", help="its working directory"),
    Flag("--env", "-e", value="NAME=VALUE", many=True, help="a further variable"),
    Flag("--cap", "-c", value="CAPABILITY", many=True, help="a further capability"),
    Flag("--no-new-privs", help="let no program of it gain privileges"),
    Flag("--ignore-paused", help="also in a paused container: it runs when that goes on"),
    Flag("--no-subreaper", help="do not become the parent of the process's orphans"),
)
ARGUMENTS = "[flags] ID [PROGRAM ARGUMENT…]"
WORDS_END_FLAGS = True


def run(context: Context, given: Options) -> int:
    """Run it; in the foreground the exit code is the program's."""
    container, *arguments = given.words or [""]
    if not container:
        raise errors.InvalidSpec("arguments: expected ID and a program")
    preserved = making.settle(given)
    process = making.with_listen_fds(_process(control.config(context.root, container), given, arguments))
    take = making.terminal_taker(given)
    front = None
    if not given.on("--detach"):
        front = foreground.Foreground()
        take = take or front.take_terminal
        if not given.on("--no-subreaper"):
            syscalls.set_child_subreaper()
    request = unattendedexec.Request(
        root=os.path.abspath(context.root),
        container=container,
        process=process,
        preserved_fds=preserved,
        pid_file=given.text("--pid-file"),
        take_terminal=take,
        ignore_paused=given.on("--ignore-paused"),
    )
    pid = unattendedexec.execute(request)
    return front.wait(pid) if front is not None else 0


def _process(config: dict[str, Any], given: Options, arguments: list[str]) -> dict[str, Any]:
    """The file's object as it is, or the container's own process with another program and what the flags change."""
    if path := given.text("--process"):
        return bundle.read_object(path)
    if not arguments:
        raise errors.InvalidSpec("arguments: expected a program after the ID, or --process")
    process: dict[str, Any] = {key: value for key, value in config["process"].items() if key != "consoleSize"}
    process["args"] = arguments
    process["terminal"] = given.on("--tty")
    process["env"] = [*(process.get("env") or ()), *given.texts("--env")]
    if cwd := given.text("--cwd"):
        process["cwd"] = cwd
    if given.on("--no-new-privs"):
        process["noNewPrivileges"] = True
    process["user"] = _user(process.get("user") or {}, given)
    if extra := given.texts("--cap"):
        sets = process.get("capabilities") or {}
        # Neither inheritable nor ambient: a program must not pass them on by itself (CVE-2022-29162).
        added = {name: [*(sets.get(name) or ()), *extra] for name in ("bounding", "effective", "permitted")}
        process["capabilities"] = {**sets, **added}
    return process


def _user(inherited: dict[str, Any], given: Options) -> dict[str, Any]:
    user: dict[str, Any] = {"username": given.text("--user")} if given.text("--user") else dict(inherited)
    if further := given.texts("--additional-gids"):
        if not all(word.isascii() and word.isdigit() for word in further):
            raise errors.InvalidSpec(f"--additional-gids: {' '.join(further)!r} must be numbers")
        user["additionalGids"] = [*user.get("additionalGids", ()), *map(int, further)]
    return user
