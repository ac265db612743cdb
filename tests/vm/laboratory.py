"""A cluster on three virtual machines with Debian, from the first `install.sh` to a new root of trust: `make test-vm`.

Two rules. The tests are one story, in this order: each begins where the one before has ended, and the first that fails
ends it (-x). And this file is collected where it is named, and by nothing else: with emulated processors it takes half
an hour.
"""

import collections
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.vmlab import bundles, cluster, commands, keeping, laboratory, plan
from deploy.vmlab.__main__ import Progress
from deploy.vmlab.laboratory import Laboratory
from tests.vm import load

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1500)]
REPLICAS = 6
LOST = plan.MACHINES[2]
"""The machine whose plug is pulled. The first has the only control plane."""
LEFT = plan.MACHINES[:2]
SOON_S = 180.0
"""For what takes seconds on a processor of one's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What the tests share."""

    laboratory: Laboratory
    operator: cluster.Operator
    progress: Progress

    def on(self, machine: plan.Machine, command: str) -> str:
        return commands.run(self.laboratory, machine, command)

    def wait_for(self, what: str, look: "commands.Look[commands.T]", *, timeout_s: float = SOON_S) -> "commands.T":
        return commands.wait_for(what, look, timeout_s=timeout_s, say=self.progress.say)

    def ready_nodes(self) -> set[str]:
        nodes = self.operator.get("nodes")
        return {node["meta"]["name"] for node in nodes if node["status"]["state"] == "READY"}

    def replicas(self) -> collections.Counter[str]:
        """How many ready replicas are on each machine, by its name."""
        names = {node["meta"]["id"]: node["meta"]["name"] for node in self.operator.get("nodes")}
        tasks = [
            task
            for task in self.operator.get("tasks", "--service", cluster.SERVICE)
            if task["status"].get("ready") and task["desiredState"] == "RUNNING"
        ]
        return collections.Counter(names[task["nodeId"]] for task in tasks)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """Machines that have just booted; nothing of them is left afterwards."""
    places, progress = plan.places(), Progress()
    disk = bundles.ensure(places, progress.say)
    up = laboratory.up(places, disks=[disk], owner=os.getpid(), say=progress.say)
    try:
        yield Story(laboratory=up, operator=cluster.Operator(laboratory=up), progress=progress)
    finally:
        keeping.end(places)
    assert not up.keeper.alive
    assert not list(places.run.iterdir())
