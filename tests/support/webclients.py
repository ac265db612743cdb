"""Load on a service of a real cluster, from the host and from a task, and what became of each request."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from protos import families
from tests.support import webimage
from tests.support.cluster import LocalCluster
from tests.support.waiting import until

PAUSE_S = 0.03
INSIDE = """\
kind: Service
meta: {{name: clients}}
spec:
  template:
    stopGracePeriod: 1s
    container: {{image: web, command: {command}}}
"""


@dataclass(slots=True)
class Told:
    """What one process of `webload` has said. `failures` as text, so that a test can show them."""

    where: str
    failures: list[str] = field(default_factory=list)
    standing: dict[str, Any] = field(default_factory=dict)

    def take_all(self, lines: Iterable[str]) -> None:
        """Until there are no more."""
        for line in lines:
            self.take(line)

    def take(self, line: str) -> None:
        told = json.loads(line)
        if "failure" in told:
            moment = time.strftime("%H:%M:%S", time.localtime(told["at"])) + f"{told['at'] % 1:.3f}"[1:]
            words = f"{told['failure']} after {told['took_s']} s ({told['client']}, {told['error']})"
            self.failures.append(f"{moment} from {self.where} to {told['target']}: {words}")
        else:
            self.standing = told


@dataclass(slots=True)
class Clients:
    """On the host, asking every node's published port; and in a task, asking the virtual address."""

    local: LocalCluster
    outside: Told
    _seen: int = 0

    def inside(self) -> Told:
        told = Told(where="a task")
        for line in self.local.orchctl("logs", "clients").splitlines():
            if "{" in line:
                told.take(line[line.index("{") :])
        return told

    def failures(self) -> list[str]:
        """Those since the last time that they were asked for, after both have told what they know by now."""
        now = time.time()
        until(lambda: self.outside.standing.get("at", 0) > now, what="the clients outside say how things stand")
        inside = until(
            lambda: found if (found := self.inside()).standing.get("at", 0) > now else None,
            what="the clients in a task say how things stand",
        )
        failures = self.outside.failures + inside.failures
        new, self._seen = sorted(failures)[self._seen :], len(failures)
        return new

    def answered(self) -> dict[str, int]:
        """By where the clients are."""
        return {told.where: told.standing.get("answered", 0) for told in (self.outside, self.inside())}


def command(targets: list[str], *, fresh: int, kept: int) -> list[str]:
    """What asks these."""
    return [*targets, "--fresh", str(fresh), "--kept", str(kept), "--pause", str(PAUSE_S)]


@contextlib.contextmanager
def outside(targets: list[str], *, fresh: int = 2, kept: int = 2) -> Iterator[Told]:
    """Clients on the host while the block runs."""
    told = Told(where="outside")
    program = webimage.HERE / "webload.py"
    words = [sys.executable, "-I", str(program), *command(targets, fresh=fresh, kept=kept)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reading = threading.Thread(target=told.take_all, args=(process.stdout,))
        reading.start()
        try:
            yield told
        finally:
            process.kill()
            reading.join()


@contextlib.contextmanager
def load(local: LocalCluster, *, virtual: str, published: int, addresses: Sequence[str] = ()) -> Iterator[Clients]:
    """Clients of both kinds while the block runs. `addresses`: those to ask from outside, unless it is all nodes'."""
    words = json.dumps([*webimage.LOAD, *command([virtual], fresh=2, kept=2)])
    local.orchctl("apply", "-f", "-", text=INSIDE.format(command=words))
    local.await_whole("clients", 1)
    nodes = addresses or [node.address for node in local.nodes().values()]
    with outside([f"{families.bracketed(address)}:{published}" for address in nodes]) as told:
        yield Clients(local=local, outside=told)
    local.orchctl("delete", "service", "clients")
