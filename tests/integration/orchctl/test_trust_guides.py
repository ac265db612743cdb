"""The pages on trust, followed: a cluster is founded, joined, looked after, lost and restored by what is typed there.

The machines of docs/trust.md, high-availability.md, backup.md and operations.md are this one: 10.0.0.1 and 10.0.0.9
are addresses of its loopback, /var/lib/orch a folder of the test's. Left out is what cannot be there: an installation
and its services (`tests/integration/deploy/test_install.py` has a machine with systemd and types them), an etcd of
one's own (`test_another.py` there), and agents, of which the clusters of `tests/e2e` consist.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import options
from tests.support import machines_of_control, orchctl, pages
from tests.support.machines_of_control import Estate, Machine
from tests.support.waiting import until

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

COMMAND_S = 60.0
PROGRAMS = {"orch-etcd": "etcd", "orch-controlplane": "instance"}
TOKEN = re.compile(r"orch-1\.\S+")


class Guide:
    """Somebody who types what a page has, on the machine of `cp1` unless it is said which."""

    def __init__(self, estate: Estate, first: Machine) -> None:
        self.estate, self.first = estate, first
        self.folder = estate.folder / "work"
        self.folder.mkdir()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environ = {**estate.environ, "PATH": path, "HOME": str(self.folder)}
        self.tokens: dict[str, str] = {}

    def here(self, command: str, machine: Machine | None = None) -> str:
        """With the addresses and folders of a machine of the test."""
        at = machine or self.first
        command = re.sub(r"/(?:var/lib|srv)/orch\b(?!-)", str(at.folder), command)
        if command.startswith("orchctl"):  # which names the cluster's first machine, wherever it is typed
            at = self.first
        return command.replace("10.0.0.1", at.host)

    def types(self, command: str, *more: str, machine: Machine | None = None, code: int = 0) -> str:
        """What it says. `more`: what only a test has to add."""
        done = subprocess.run(
            ["sh", "-c", " ".join([self.here(command, machine), *more])],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{command}: {done.returncode}\n{said}"
        return said

    def starts(self, command: str, machine: Machine | None = None) -> None:
        """A program that goes on, on a machine."""
        program, *words = shlex.split(self.here(command, machine))
        (machine or self.first).start_program(PROGRAMS[program], program, *words)

    def has_token(self, token: str) -> None:
        """In the file that the pages name."""
        (self.folder / "token").write_text(token)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guide]:
    with machines_of_control.estate(tmp_path_factory.mktemp("estate")) as estate:
        yield Guide(estate, estate.machine("cp1"))


def test_a_cluster_is_founded_joined_and_entered(guide: Guide) -> None:
    """docs/trust.md, from nothing; docs/high-availability.md founds and joins by the same commands."""
    init, etcd, control, node, agent, join, create, login, *_ = typed = pages.commands("trust.md")
    others = pages.commands("high-availability.md")
    assert [init, etcd, control, join] == others[:4], typed
    guide.tokens = dict(zip(("node", "controlplane"), TOKEN.findall(guide.types(init)), strict=True))
    for program in (etcd, control):
        guide.starts(program)
    until(lambda: guide.estate.run("get", "nodes").returncode == 0, what="it answers", timeout_s=COMMAND_S)

    guide.has_token(guide.tokens["node"])
    guide.types(node.replace("/var/lib/orch-agent", str(guide.folder / "agent")))
    words = shlex.split(guide.here(agent))[1:-1]
    assert options.parse([*words, "--name=n1", "--address=10.0.0.2"]).trust, "the page leaves two out"

    second = guide.estate.machine("cp2")
    guide.has_token(guide.tokens["controlplane"])
    guide.types(join, f"--host {second.host}", machine=second)
    for program in (etcd, control):
        guide.starts(program.replace("cp1", "cp2"), second)
    until(lambda: len(machines_of_control.members(guide.first)) == 2, what="its store takes part", timeout_s=COMMAND_S)

    guide.has_token(guide.types(create).split()[0])
    guide.environ["ORCH_CONFIG"], own = str(guide.folder / "ann.yaml"), guide.environ["ORCH_CONFIG"]
    assert "logged in as editor ann" in guide.types(login)
    guide.types("orchctl get services -n shop")
    assert "editor ann may not" in guide.types("orchctl delete node n1", code=1)
    guide.environ["ORCH_CONFIG"] = own


def test_tokens_are_listed_exchanged_and_made_worthless(guide: Guide) -> None:
    """docs/trust.md. Deleting a node needs one: the clusters of `tests/e2e` do it."""
    delete, listing, rotate, revoke = pages.commands("trust.md")[-4:]
    assert delete == "orchctl delete node n3"
    (one,) = (line.split()[0] for line in guide.types(listing).splitlines() if " node " in line)
    other = guide.types(rotate.replace("ID", one))
    guide.has_token(guide.tokens["node"])
    join = pages.commands("trust.md")[3].replace("/var/lib/orch-agent", str(guide.folder / "late"))
    assert "was revoked" in guide.types(join, code=1)
    guide.has_token(TOKEN.findall(other)[0])
    guide.types(join, "--name late")
    (one,) = (line.split()[0] for line in guide.types(listing).splitlines() if " node " in line and one not in line)
    guide.types(revoke.replace("ID", one))
    assert "was revoked" in guide.types(join.replace("late", "later"), code=1)


def test_a_control_plane_is_taken_out(guide: Guide) -> None:
    """docs/high-availability.md: its member of etcd with it; and the only one that there is stays."""
    (revoke,) = (one for one in pages.commands("high-availability.md") if "revoke" in one)
    guide.types(revoke)
    until(lambda: len(machines_of_control.members(guide.first)) == 1, what="one member is left", timeout_s=COMMAND_S)
    guide.types(revoke.replace("cp2", "cp1"), code=1)


def test_a_cluster_is_restored_where_programs_are_started_by_hand(guide: Guide) -> None:
    """docs/backup.md, into empty folders; what was made after the backup is not there."""
    backup, *_, restore, etcd, control, agent = pages.commands("backup.md")
    assert agent.startswith("orch-agent --server 10.0.0.9")
    guide.types("orchctl cluster token create --role viewer --person early")
    guide.types(backup.replace("/root/", f"{guide.folder}/"), f"--trust {guide.first.trust}")
    guide.types("orchctl cluster token create --role viewer --person late")
    guide.first.stop()
    again = guide.estate.machine("again")
    guide.types(restore.replace("10.0.0.9", again.host), "--context restored", machine=again)
    for program in (etcd, control):
        guide.starts(program.replace("10.0.0.9", again.host), again)
    guide.first = again
    until(lambda: guide.estate.run("get", "nodes").returncode == 0, what="it answers", timeout_s=COMMAND_S)
    listed = guide.types("orchctl cluster token ls")
    assert " early " in listed
    assert " late " not in listed


def test_an_admin_is_let_in_by_what_is_printed(guide: Guide) -> None:
    """docs/operations.md."""
    (recover,) = (one for one in pages.transcript("operations.md") if "recover-admin" in one.command)
    said = guide.types(recover.command, f"--trust {guide.first.trust}")
    pages.check(recover, said.replace(guide.first.host, "10.0.0.1"))
    (line,) = (one for one in said.splitlines() if "orchctl login" in one)
    assert "logged in as admin ann" in guide.types(line, "--context again")


def test_a_mistake_in_a_file_is_told_with_its_place(tmp_path: Path) -> None:
    """docs/operations.md shows one of an agent's."""
    (started,) = (one for one in pages.transcript("operations.md") if "journalctl" in one.command)
    path, line = re.findall(r"(/etc\S+\.yaml):(\d+):1: adress", started.seen)[0]
    others = "name: n1\nserver: 10.0.0.1\nstate: /nowhere\n"
    (tmp_path / "agent.yaml").write_text(others + "#\n" * (int(line) - 4) + "adress: 10.0.0.2\n")
    done = subprocess.run(
        [sys.executable, "-m", "agent", f"--config={tmp_path / 'agent.yaml'}"],
        cwd=orchctl.ROOT, capture_output=True, text=True, timeout=COMMAND_S, check=False,
    )  # fmt: skip
    assert done.returncode
    pages.check(started, done.stderr.replace(str(tmp_path / "agent.yaml"), path))
