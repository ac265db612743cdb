"""RUN as a task: what it finds, how it is run, and what of its traces stays.

Rules. The key holds everything that the command can see of the build but the values of secrets and proxies. The
machine's resolver and host names are mounted, and so are no part of the layer; places that were made only to mount
something on are taken away again.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from images import errors, scratch
from images.build import cache, configuration, containers, descriptors, mountpoints, runmounts, views, workshop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from images.build.instructions import Command, Run
    from images.build.scope import Scope
    from images.build.sources import Tree
    from images.build.stages import Built
    from images.build.workshop import Work, Workshop
    from images.image import Layer

_SCRIPT = "/dev/pipes/script"
_TOLD_BYTES = 8 << 10
_TOLD_LINES = 20
_HOSTS = f"127.0.0.1\tlocalhost {containers.HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_RESOLVER = Path("/etc/resolv.conf")


class RunTask:
    """One RUN; the values of its mounts are replaced, the command is the shell's."""

    def __init__(
        self,
        shop: Workshop,
        built: Built,
        scope: Scope,
        run: Run,
        tree_of: Callable[[str], Tree],
        wrote: Callable[[bytes], None],
    ) -> None:
        self._shop = shop
        self._built = built
        self._scope = scope
        self._run = run
        self._tree_of = tree_of
        self._wrote = wrote
        self._mounts: tuple[runmounts.Prepared, ...] = ()
        self._holds = True

    def keys(self) -> Iterator[str]:
        settings = self._built.settings
        if self._run.network == "host" and self._shop.options.network == "none":
            raise errors.InvalidDockerfile(
                "--network=host asks for the network that --network none has taken from every step; leave one out"
            )
        self._mounts = tuple(
            runmounts.prepare(mount, configuration.workdir(settings, mount.target), self._tree_of)
            for mount in self._run.mounts
        )
        yield cache.key(
            "run",
            workshop.chain_id(self._built.layers),
            self._args,
            self._script,
            dict(self._scope.variables),
            [settings.workdir, settings.user, self._network],
            [one.decides for one in self._mounts],
            self._shop.options.epoch_s,
        )

    def carry_out(self) -> Layer:
        with self._shop.work(self._built.layers) as work:
            targets = self._execute(work)
            self._tidy(work, targets)
            return self._shop.commit(work)

    def holds(self) -> bool:
        return self._holds

    def close(self) -> None:
        """Nothing was taken."""

    # The command ------------------------------------------------------------------------------------------------------

    @property
    def _network(self) -> str:
        return self._shop.options.network if self._run.network == "default" else self._run.network

    @property
    def _script(self) -> str:
        """A heredoc that brings its own interpreter, which is run as a file."""
        script = self._run.command.script
        return script.content if script is not None and script.content.startswith("#!") else ""

    @property
    def _args(self) -> tuple[str, ...]:
        return (_SCRIPT,) if self._script else _words(self._built.settings, self._run.command)

    def _execute(self, work: Work) -> list[str]:
        """Run it; returns where something was mounted. Raises `BuildFailed` with the command's last words."""
        settings, told = self._built.settings, _LastWords(self._wrote)
        with contextlib.ExitStack() as stack:
            maker = runmounts.Maker(
                stack,
                store_cache=self._shop.cache,
                containers=self._shop.containers,
                tree_of=self._tree_of,
                secrets=self._shop.options.secrets,
                check=self._shop.check_stopped,
            )
            made = maker.make(self._mounts)
            self._holds = not made.is_another
            if self._script:
                maker.text(_SCRIPT, self._script, made, mode=0o755)
            maker.text("/etc/hosts", _HOSTS, made)
            maker.text("/etc/resolv.conf", _resolver(), made)
            order = containers.Order(
                args=self._args,
                env={**self._scope.run_environment, **made.env},
                cwd=settings.workdir,
                user=settings.user,
                overlay={
                    "lower": list(views.lower(work.place, work.folders)),
                    "upper": str(work.place.upper),
                    "work": str(work.place.work),
                },
                network=self._network,
                mounts=made.mounts,
            )
            code = self._shop.containers.run(order, told.take)
        self._shop.check_stopped()
        if code:
            raise errors.BuildFailed(f"ended with exit code {code}{_meaning(code)}{told.text}")
        return made.targets

    def _tidy(self, work: Work, targets: list[str]) -> None:
        """Take away what only served as a place to mount on."""
        with descriptors.closing(os.open(work.place.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as upper:
            if not mountpoints.may_be_there(upper):
                return
            with (
                scratch.folder(self._shop.store.tmp) as item,
                views.mounted(views.prepare(item.path / "w", work.folders), work.folders) as before,
            ):
                with self._shop.opened(work) as after:
                    touched = mountpoints.remove_made((*targets, *mountpoints.ALWAYS), before=before, after=after)
                mountpoints.put_back(touched, before=before, upper=upper)


def _words(settings: configuration.Settings, command: Command) -> tuple[str, ...]:
    """The words to execute; bodies of heredocs follow the line, as a shell wants them."""
    if not command.is_shell:
        return command.words
    if command.script is not None:
        return (*settings.shell, command.script.content)
    bodies = "".join(f"{one.content}{one.name}\n" for one in command.heredocs)
    return (*settings.shell, f"{command.line}\n{bodies}" if bodies else command.line)


def _resolver() -> str:
    """The machine's own, since its network is used."""
    try:
        return _RESOLVER.read_text(errors="replace")
    except OSError:
        return ""


def _meaning(code: int) -> str:
    return {126: " (cannot be executed)", 127: " (not found)", 137: " (killed, perhaps for want of memory)"}.get(
        code, ""
    )


class _LastWords:
    """Passes output on, and keeps the end of it."""

    def __init__(self, wrote: Callable[[bytes], None]) -> None:
        self._wrote = wrote
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def take(self, data: bytes) -> None:
        self._wrote(data)
        self._pieces.append(data)
        self._size += len(data)
        while self._size - len(self._pieces[0]) > _TOLD_BYTES:
            self._size -= len(self._pieces.popleft())

    @property
    def text(self) -> str:
        """The last lines, for an error: without what steers a terminal."""
        lines = b"".join(self._pieces)[-_TOLD_BYTES:].decode(errors="replace").strip().splitlines()[-_TOLD_LINES:]
        shown = (
            "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in line) for line in lines
        )
        return ":\n" + "\n".join(f"  {line}" for line in shown) if lines else ""
