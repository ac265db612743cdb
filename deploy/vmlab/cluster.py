"""A cluster on the machines, made as an operator makes one: install, found, join, log in, push an image, apply."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy import hello
from deploy.local import errors
from deploy.vmlab import bundles, commands, initial, plan
from deploy.vmlab.laboratory import Laboratory, Say

SERVICE: Final = "everywhere"
MANIFEST: Final = "manifests/examples/published-everywhere.yaml"
_PATIENCE: Final = "onNodeLoss: {replaceAfter: 40s}"
"""An emulated machine takes eight seconds to start its agent anew, and would be given up after five."""
_LEASE: Final = "leader-lease: 10s"
"""An emulated leader loses the usual one every few seconds while anything else happens (docs/high-availability.md)."""
PUBLISHED_PORT: Final = 18081
"""Of the manifest."""
FIRST: Final = plan.MACHINES[0]
"""Its address is the cluster's."""
DOOR: Final = f"{FIRST.address}:7401"
"""Where whoever joins knocks."""
_INSTALL_TIMEOUT_S: Final = 900.0
_JOIN_TIMEOUT_S: Final = 300.0
_ORCHCTL_TIMEOUT_S: Final = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Somebody at the host, who is no machine of the cluster, with `orchctl` and a certificate of their own."""

    laboratory: Laboratory

    def orchctl(self, *arguments: str) -> str:
        """What the command prints. LocalError with its words when it fails, or takes too long."""
        done = self._run(arguments)
        if done.returncode != 0:
            said = f"orchctl {shlex.join(arguments)}: ended with {done.returncode}"
            raise errors.LocalError(said, detail=done.stdout + done.stderr)
        return done.stdout

    def refusal(self, *arguments: str) -> str:
        """What the command says that does not do it. LocalError when it does."""
        done = self._run(arguments)
        if done.returncode == 0:
            raise errors.LocalError(f"orchctl {shlex.join(arguments)}: was not refused", detail=done.stdout)
        return done.stderr

    def _run(self, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        command = self.laboratory.on_lan(sys.executable, "-m", "orchctl", *arguments)
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env={**os.environ, "ORCH_CONFIG": str(self._folder / "config.yaml")},
                cwd=initial.ROOT,
                timeout=_ORCHCTL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise errors.LocalError(
                f"longer than {_ORCHCTL_TIMEOUT_S:.0f} s: orchctl {shlex.join(arguments)}"
            ) from None

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """A list of objects, as `orchctl get` has them in JSON."""
        answer: list[dict[str, Any]] = json.loads(self.orchctl("get", *arguments, "-o", "json"))
        return answer

    def log_in(self, text: str) -> None:
        """Trade a token for a certificate."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        file = self._folder / "token"
        file.write_text(text)
        self.orchctl("login", "--token", f"@{file}", "--door", DOOR, "--context", "vmlab")
        file.unlink()

    @property
    def _folder(self) -> Path:
        return self.laboratory.places.run / "operator"


def make(laboratory: Laboratory, *, say: Say) -> Operator:
    """From machines on which nothing is installed to an example that answers. LocalError with what goes wrong."""
    install(laboratory, bundles.THIS, *plan.MACHINES, say=say)
    found(laboratory, say=say)
    join(laboratory, *plan.MACHINES, say=say)
    operator = Operator(laboratory=laboratory)
    operator.log_in(token(laboratory, "admin", "--person", "operator"))
    say("the operator on the host is logged in")
    apply(operator, say=say)
    return operator


def install(laboratory: Laboratory, release: str, *machines: plan.Machine, say: Say) -> None:
    """Install a release from the bundles' disk, or upgrade to it, on several machines side by side."""
    command = f"{bundles.MOUNT} && /mnt/{release}/install.sh"
    commands.on_all(laboratory, dict.fromkeys(machines, command), "install.sh", timeout_s=_INSTALL_TIMEOUT_S, say=say)


def found(laboratory: Laboratory, *, say: Say) -> None:
    """Found the cluster on the first machine."""
    init = "orchctl cluster init"
    command = f"{init} && echo {_LEASE!r} >>/etc/orch/controlplane.yaml && systemctl restart orch-controlplane"
    commands.on_all(laboratory, {FIRST: command}, init, timeout_s=_JOIN_TIMEOUT_S, say=say)


def join(laboratory: Laboratory, *machines: plan.Machine, say: Say) -> None:
    """Make the machines nodes, side by side, with one token."""
    text = token(laboratory, "node")
    join_ = f"orchctl node join --token @/run/token --server {FIRST.address}"
    command = f"umask 077; printf %s {text} >/run/token; {join_} && rm /run/token"
    commands.on_all(laboratory, dict.fromkeys(machines, command), "node join", timeout_s=_JOIN_TIMEOUT_S, say=say)


def token(laboratory: Laboratory, role: str, *options: str) -> str:
    """A token, made by the first admin, who is root on the first machine."""
    said = commands.run(
        laboratory, FIRST, f"orchctl cluster token create --role {shlex.join((role, *options))} 2>/dev/null"
    )
    return said.strip()


def apply(operator: Operator, *, say: Say) -> None:
    """Push the demo's image, and apply the example with a port that is published on every node."""
    tar = operator.laboratory.places.run / "hello.tar"
    hello.write(tar)
    operator.orchctl("image", "push", "--archive", str(tar), "--name", "hello", "--cmd", hello.START)
    manifest = operator.laboratory.places.run / "example.yaml"
    manifest.write_text(Path(MANIFEST).read_text().replace("spec:\n", f"spec:\n  {_PATIENCE}\n", 1))
    operator.orchctl("apply", "-f", str(manifest), "--timeout", f"{_ORCHCTL_TIMEOUT_S - 10:.0f}s")
    say(f"{MANIFEST} is applied, and answers at http://{FIRST.address}:{PUBLISHED_PORT} and on the other machines")
