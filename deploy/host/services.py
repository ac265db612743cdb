"""Services of this machine, by systemd; without it nothing is started, and the person is told what to run."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from deploy.host.errors import HostError

AGENT: Final = "orch-agent"
INSTANCE: Final = "orch-controlplane"
STORE: Final = "orch-etcd"
COMMANDS: Final[Mapping[str, str]] = {
    AGENT: "orch-agent --config /etc/orch/agent.yaml",
    INSTANCE: "orch-controlplane --config /etc/orch/controlplane.yaml",
    STORE: "orch-etcd --config /etc/orch/etcd.yaml",
}
TASKS: Final = "orch-tasks"
"""Has no program, and what is below its group."""
TASKS_GROUP: Final = "/system.slice/orch-tasks.service"
"""What systemd gives away for the groups of tasks."""
_TIMEOUT_S: Final = 180


def start(units: Sequence[str]) -> None:
    """Has them run now, with what is configured now, and at every boot.

    Returns when each has said that it is ready. HostError with its last words when it does not come to that.
    """
    for unit in units:
        _enable(unit)
        try:
            done = _systemctl("restart", unit)
        except subprocess.TimeoutExpired:
            raise _not_ready(unit, "in time") from None
        if done.returncode != 0:
            raise _not_ready(unit, "")


def end(units: Sequence[str]) -> None:
    """Ends them, and they come no more at a boot. HostError with what systemd says when one does not."""
    for unit in units:
        hint = f"mend that, and try again; journalctl -u {unit} tells more"
        try:
            done = _systemctl("disable", "--now", unit)
        except subprocess.TimeoutExpired:
            raise HostError(f"{unit} does not end within {_TIMEOUT_S} s", hint=hint) from None
        if done.returncode != 0:
            raise HostError(f"{unit} does not end", hint=hint, detail=done.stderr.strip())


def _enable(unit: str) -> None:
    done = _systemctl("enable", unit)
    if done.returncode != 0:
        raise HostError(f"{unit} is not installed here", hint="install it with install.sh", detail=done.stderr.strip())


def _not_ready(unit: str, when: str) -> HostError:
    log = subprocess.run(
        # What the program itself has said; systemd's own words about it are in the message.
        ["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=6", f"_SYSTEMD_UNIT={unit}.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    text = f"{unit} did not become ready {when}".rstrip()
    return HostError(text, hint=f"mend what it says, and try again; journalctl -u {unit} has it all", detail=log.stdout)


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", "--no-ask-password", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
