"""Execute hooks (runtime-spec, config.md "POSIX-platform Hooks"; runtime.md "Lifecycle").

    hooks              executed by     in the namespaces of   when                           a failure
    prestart           creator         the creator            the file tree stands, before   fails the creation;
    createRuntime      creator         the creator              pivot_root                     poststop follows
    createContainer    first process   the container, with    after them                     likewise
                                         the host's files
    startContainer     first process   the container          after `start`                  fails the start
    poststart          creator         the creator            before `start` returns         is a warning
    poststop           who deletes     the caller             before `delete` returns        is a warning

One rule: a hook gets the state on its stdin, its own variables, clean signals, a process group of its own, and a
time: its own, or DEFAULT_TIMEOUT_S, after which its whole group is killed.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime import errors
from runtime.fields import Fields
from runtime.spec import Hook, parse_hooks
from runtime.state import describe

DEFAULT_TIMEOUT_S: Final = 120
POSTSTOP: Final = "poststop"
"""As a configuration calls those that follow a deletion."""
_KEPT_OUTPUT: Final = 1000
_CHUNK: Final = 4096


def run(hooks: Sequence[Hook], state: Mapping[str, Any]) -> None:
    """Execute them in order; raises SetupFailed for the first that fails, after which none is executed."""
    for hook in hooks:
        _execute(hook, state)


def run_to_the_end(hooks: Sequence[Hook], state: Mapping[str, Any]) -> None:
    """Execute them all; a failure is a warning on our stderr."""
    for hook in hooks:
        try:
            _execute(hook, state)
        except errors.SetupFailed as error:
            with contextlib.suppress(OSError):  # nobody reads our words any more
                sys.stderr.write(f"warning: container {state['id']}: {error.message}\n")
                sys.stderr.flush()


def after_start(config: Mapping[str, Any], container: str, pid: int, bundle: str) -> None:
    """Execute the poststart hooks of a container whose program runs, by its configuration."""
    hooks = parse_hooks(Fields({"hooks": config.get("hooks")}, "")).poststart
    if hooks:
        annotations = config.get("annotations") or {}
        run_to_the_end(hooks, describe(container, "running", pid=pid, bundle=bundle, annotations=annotations))


def after_deletion(config: Mapping[str, Any], container: str, bundle: str) -> None:
    """Execute the poststop hooks of a container that is gone, by the configuration that it had."""
    hooks = parse_hooks(Fields({"hooks": config.get("hooks")}, "")).poststop
    if hooks:
        annotations = config.get("annotations") or {}
        run_to_the_end(hooks, describe(container, "stopped", pid=None, bundle=bundle, annotations=annotations))


def _execute(hook: Hook, state: Mapping[str, Any]) -> None:
    step = f"{hook.field} {hook.path}"
    with errors.step(step):
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            pid = _spawn(hook, state, theirs)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        try:
            code, said = _await(pid, ours, hook.timeout_s or DEFAULT_TIMEOUT_S)
        finally:
            os.close(ours)
    if code is None:
        raise errors.SetupFailed(f"{step}: did not end within {hook.timeout_s or DEFAULT_TIMEOUT_S} s", step=step)
    if code:
        how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
        raise errors.SetupFailed(f"{step}: {how}{': ' + said if said else ''}", step=step)


def _spawn(hook: Hook, state: Mapping[str, Any], output: int) -> int:
    """posix_spawn(3): no copy of our memory, and a failed exec is an error here."""
    # A file and not a pipe: a hook that reads nothing, or not all, holds up nobody.
    stdin = os.memfd_create("state", os.MFD_CLOEXEC)
    try:
        os.write(stdin, json.dumps(state).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        return os.posix_spawn(
            hook.path,
            hook.args,
            dict(entry.split("=", 1) for entry in hook.env),
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            # Python ignores these two, and what is ignored stays ignored over an exec.
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
    finally:
        os.close(stdin)


def _await(pid: int, output: int, timeout_s: float) -> tuple[int | None, str]:
    """The exit code (-N for signal N, None when its time was over) and the last words of what it wrote."""
    os.set_blocking(output, False)
    said = b""
    pidfd = os.pidfd_open(pid)
    watch = select.poll()
    watch.register(pidfd, select.POLLIN)
    watch.register(output, select.POLLIN)
    until = time.monotonic() + timeout_s
    ended = False
    while not ended and (left_s := until - time.monotonic()) > 0:
        ready = dict(watch.poll(left_s * 1000))
        ended = pidfd in ready
        if output in ready:
            said, more = _read(output, said)
            if not more:
                watch.unregister(output)
    os.close(pidfd)
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    words = said.decode(errors="replace").strip()[-_KEPT_OUTPUT:]
    return (code if ended else None), " ".join(words.split())


def _read(output: int, said: bytes) -> tuple[bytes, bool]:
    """What was written so far, at most a chunk of it, and whether more may come."""
    try:
        new = os.read(output, _CHUNK)
    except BlockingIOError:
        return said, True
    return (said + new)[-_CHUNK:], bool(new)
