"""A cluster on three virtual machines with Debian, from the first `install.sh` to a new root of trust: `make test-vm`.

Two rules. The tests are one story, in this order: each begins where the one before has ended, and the first that fails
ends it (-x). And this file is collected where it is named, and by nothing else: with emulated processors it takes half
an hour.
"""

import collections
import os
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.local import errors
from deploy.vmlab import bundles, cluster, commands, initial, keeping, laboratory, plan
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

    def wait_for(self, what: str, look: commands.Look[commands.T], *, timeout_s: float = SOON_S) -> commands.T:
        return commands.wait_for(what, look, timeout_s=timeout_s, say=self.say)

    def say(self, text: str) -> None:
        self.progress.say(text)

    def ready_nodes(self) -> set[str]:
        nodes = self.operator.get("nodes")
        return {node["meta"]["name"] for node in nodes if node["status"]["state"] == "ready"}

    def replicas(self) -> collections.Counter[str]:
        """How many ready replicas are on each machine, by its name."""
        names = {node["meta"]["id"]: node["meta"]["name"] for node in self.operator.get("nodes")}
        tasks = [
            task
            for task in self.operator.get("tasks", "--service", cluster.SERVICE)
            if task["status"].get("ready") and task["desiredState"] == "running"
        ]
        return collections.Counter(names[task["nodeId"]] for task in tasks)


@pytest.fixture(scope="module")
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    """Machines that have just booted; nothing of them is left afterwards."""
    places, progress = plan.places(), Progress()
    up = laboratory.up(places, owner=os.getpid(), say=progress.say)
    try:
        yield Story(laboratory=up, operator=cluster.Operator(laboratory=up), progress=progress)
        if request.session.testsfailed:
            _tell_journals(up, progress)
    finally:
        keeping.end(places)
    assert not up.keeper.alive
    assert not list(places.run.iterdir())


def _tell_journals(up: Laboratory, progress: Progress) -> None:
    """What the machines' services have said last, for whoever has to find out why."""
    for machine in plan.MACHINES:
        try:
            said = commands.run(up, machine, "journalctl --no-pager --lines=40 --unit='orch-*'")
        except errors.LocalError as error:  # it may be off
            said = str(error)
        progress.say(f"{machine.name}:\n{said}")


def test_the_machines_are_ordinary_debians(story: Story) -> None:
    """With systemd, Debian's kernel and control groups of version 2; and with nothing of ours."""
    for machine in plan.MACHINES:
        assert story.on(machine, "cat /proc/1/comm").strip() == "systemd"
        assert "cloud-amd64" in story.on(machine, "uname -r")
        assert story.on(machine, "stat --file-system --format=%T /sys/fs/cgroup").strip() == "cgroup2fs"
        assert not story.on(machine, "systemctl --failed --quiet --no-legend")
        assert "none" in story.on(machine, "command -v orchctl orch-agent || echo none")


def test_install_sh_installs_without_a_network_and_starts_nothing(story: Story) -> None:
    """A machine has no role before somebody gives it one; a second run finds everything done."""
    cluster.install(story.laboratory, bundles.THIS, *plan.MACHINES, say=story.say)
    for machine in plan.MACHINES:
        assert "current: " in story.on(machine, "/opt/orch/install.sh status")
        assert "running" not in story.on(machine, "systemctl list-units --no-legend --state=running 'orch-*'")
    before = story.on(plan.MACHINES[0], "ls -lR --time-style=full-iso /opt/orch/releases | sha256sum")
    cluster.install(story.laboratory, bundles.THIS, plan.MACHINES[0], say=story.say)
    assert story.on(plan.MACHINES[0], "ls -lR --time-style=full-iso /opt/orch/releases | sha256sum") == before


def test_machines_join_with_a_command_each(story: Story) -> None:
    """One founds the cluster; all three become nodes; somebody on another machine logs in."""
    cluster.found(story.laboratory, say=story.say)
    cluster.join(story.laboratory, *plan.MACHINES, say=story.say)
    story.operator.log_in(cluster.token(story.laboratory, "admin", "--person", "operator"))
    everybody = {machine.name for machine in plan.MACHINES}
    story.wait_for("the three nodes are ready", lambda: story.ready_nodes() == everybody or None)
    founder = plan.MACHINES[0]
    for program in ("etcd", "controlplane", "agent"):  # go before what runs on their machine
        unit = f"orch-{program}.service"
        process = story.on(founder, f"systemctl show --value --property=MainPID {unit}").strip()
        assert story.on(founder, f"cat /proc/{process}/oom_score_adj").strip() == "-900", unit
        assert int(story.on(founder, f"cat /sys/fs/cgroup/system.slice/{unit}/cpu.weight")) >= 300, unit


def test_a_published_port_answers_from_outside_on_every_machine(story: Story) -> None:
    """An image without a registry, an example from the manifests, and a client that is no machine of the cluster."""
    cluster.apply(story.operator, say=story.say)
    story.operator.orchctl("scale", f"{cluster.SERVICE}={REPLICAS}")
    even = {machine.name: REPLICAS // plan.COUNT for machine in plan.MACHINES}
    story.wait_for("the replicas are spread evenly", lambda: story.replicas() == even or None)
    for machine in plan.MACHINES:
        assert load.ask(story.laboratory, machine).startswith(f"task={cluster.SERVICE}-")


def test_a_machine_whose_plug_is_pulled_is_replaced_by_the_others(story: Story) -> None:
    """Its replicas run on the machines that are left, which go on answering."""
    began = time.monotonic()
    story.laboratory.pull_plug(LOST)
    story.wait_for("the others have all replicas", lambda: _only_on_the_others(story.replicas()) or None)
    story.say(f"all {REPLICAS} replicas run on the others {time.monotonic() - began:.0f} s after the power cut")
    assert LOST.name not in story.ready_nodes()
    for machine in LEFT:
        assert load.ask(story.laboratory, machine).startswith(f"task={cluster.SERVICE}-")


def _only_on_the_others(replicas: collections.Counter[str]) -> bool:
    return replicas.total() == REPLICAS and set(replicas) == {machine.name for machine in LEFT}


def test_it_rejoins_by_itself_when_it_is_switched_on_and_load_is_spread_again(story: Story) -> None:
    """Nobody does anything on it; `orchctl rebalance` need not wait for the gentle way."""
    story.laboratory.switch_on(LOST)
    laboratory.await_boot(story.laboratory, LOST, story.say)
    story.wait_for(f"{LOST.name} is ready again", lambda: LOST.name in story.ready_nodes() or None)
    assert "active" in story.on(LOST, "systemctl is-active orch-agent")
    story.operator.orchctl("rebalance")
    even = {machine.name: REPLICAS // plan.COUNT for machine in plan.MACHINES}
    story.wait_for("the replicas are spread evenly again", lambda: story.replicas() == even or None)
    assert load.ask(story.laboratory, LOST).startswith(f"task={cluster.SERVICE}-")


def test_agents_are_upgraded_under_load_and_no_request_fails(story: Story) -> None:
    """One machine after the other gets the next release; containers and their ports do not notice."""
    before = _tasks(story)
    with load.on(story.laboratory, *plan.MACHINES) as seen:
        for machine in reversed(plan.MACHINES):  # the control plane's machine last
            cluster.install(story.laboratory, bundles.NEXT, machine, say=story.say)
            story.wait_for("the three nodes are ready", lambda: len(story.ready_nodes()) == plan.COUNT or None)
    assert not seen.failures, "\n".join(seen.failures)
    assert seen.answered > plan.COUNT * 10
    story.say(f"{seen.answered} requests were answered during the upgrade, the slowest after {seen.slowest_s:.1f} s")
    assert _tasks(story) == before, "tasks were replaced or restarted"
    for machine in plan.MACHINES:
        release = story.on(machine, "readlink --canonicalize /opt/orch/current")
        assert f"/opt/orch/releases/{_next_version()}-" in release


def _next_version() -> str:
    project = bundles.raised((initial.ROOT / "pyproject.toml").read_text())
    return str(tomllib.loads(project)["project"]["version"])


def _tasks(story: Story) -> set[tuple[str, str, int]]:
    tasks = story.operator.get("tasks", "--service", cluster.SERVICE)
    running = [task for task in tasks if task["desiredState"] == "running"]
    return {(task["meta"]["name"], task["nodeId"], task["status"].get("restarts", 0)) for task in running}


def test_the_root_of_trust_is_exchanged_while_everything_goes_on(story: Story) -> None:
    """Every member gets a certificate of the new root, the old one goes, and so does every token."""
    before, roots = _tasks(story), _roots(story)
    token = cluster.token(story.laboratory, "viewer", "--person", "late")
    with load.on(story.laboratory, *plan.MACHINES) as seen:
        _rotate(story)
    assert not seen.failures, "\n".join(seen.failures)
    assert _tasks(story) == before
    assert story.ready_nodes() == {machine.name for machine in plan.MACHINES}

    def agree() -> dict[str, str] | None:
        """They hear of it in their sessions, once the old root is dropped."""
        after = _roots(story)
        return after if len(set(after.values())) == 1 else None

    after = story.wait_for("the machines believe the same root", agree)
    assert not set(after.values()) & set(roots.values()), "the old root is still believed"
    late = story.operator.refusal("login", "--token", token, "--door", cluster.DOOR, "--context", "late")
    assert f"the token is not of the cluster at {cluster.DOOR}" in late


def _rotate(story: Story) -> None:
    """Begin; let the other admin, root on the first machine, renew as well; and wait for the end."""

    def begun() -> bool:
        """Nobody may answer for a while: an emulated processor takes seconds for each certificate."""
        said = story.operator.refusal("cluster", "rotate-ca", "--timeout", "1s")
        return "the new root issues" in said or "the root is being exchanged already" in said

    def waits() -> bool:
        return "person:root" in story.operator.refusal("cluster", "rotate-ca", "--status", "--timeout", "1s")

    def renewed() -> bool:
        """Said again, as a person would: the store starts anew in the middle of it."""
        try:
            story.on(cluster.FIRST, "orchctl login --renew")
        except errors.LocalError as error:
            story.say(f"{error}")
            return False
        return True

    story.wait_for("the exchange begins", begun)
    story.wait_for("the exchange waits for the other admin", waits)
    story.wait_for("the other admin has renewed", renewed)
    done = story.operator.orchctl("cluster", "rotate-ca", "--status", "--timeout", f"{SOON_S:.0f}s")
    assert "there is one root" in done


def _roots(story: Story) -> dict[str, str]:
    """A digest of the roots that each machine's agent believes, by the machine's name."""
    command = "sha256sum </var/lib/orch/agent/trust/roots.pem"
    return {machine.name: story.on(machine, command).split()[0] for machine in plan.MACHINES}
