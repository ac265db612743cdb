"""The way back into a cluster that has no admin any more: as root types it, on the machine of a control plane."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import machines_of_control, orchctl
from tests.support.machines_of_control import Estate, Machine
from tests.support.waiting import until
from trust.core.identity import Role
from trust.folder import Folder

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    with machines_of_control.estate(tmp_path_factory.mktemp("estate")) as made:
        yield made


@pytest.fixture(scope="module")
def machine(estate: Estate) -> Machine:
    """The only control plane of a cluster whose only admin has lost what they are known by."""
    made = estate.machine("cp1")
    estate.found(made)
    made.start()
    estate.until_leads(made)
    shutil.rmtree(estate.folder / "trust" / "default")
    return made


def recover(estate: Estate, machine: Machine, name: str, code: int = 0) -> str:
    return estate.orchctl("cluster", "recover-admin", f"--trust={machine.trust}", name, code=code)


def typed(said: str, estate: Estate) -> orchctl.Result:
    """What the person was told to type next, typed into a shell."""
    line = next(line for line in said.splitlines() if "| orchctl login" in line)
    script = line.replace("orchctl login", f"{sys.executable} -m orchctl login --context again")
    done = subprocess.run(
        ["sh", "-c", script], env=estate.environ, capture_output=True, text=True, timeout=60, check=False
    )
    return orchctl.Result(code=done.returncode, out=done.stdout, err=done.stderr)


def test_an_admin_comes_back_by_one_command_and_the_line_that_it_prints(estate: Estate, machine: Machine) -> None:
    """Once; and everybody who may read the audit log sees it."""
    estate.orchctl("get", "nodes", code=1)
    said = recover(estate, machine, "ann")
    assert "ann may log in as an admin, once and within an hour" in said
    assert f"--door {machine.door} --token -" in said
    login = typed(said, estate)
    assert (login.code, login.out) == (0, "logged in as admin ann; context again is used now\n"), login.err
    listed = estate.orchctl("cluster", "token", "ls").splitlines()
    (row,) = [line for line in listed if "cluster recover-admin" in line]
    assert row.split()[1:5] == ["admin", "ann", "-", "0"], "it was good once"
    assert "in 5" in row, "and is for an hour, less a moment"
    told = [line.split() for line in estate.orchctl("get", "events", "--audit").splitlines() if "RecoverAdmin" in line]
    token = row.split()[0]
    assert [line[1:] for line in told] == [
        ["cp1", "controlplane", "RecoverAdmin", "admin", "ann,", "token", token, "cp1", "-"]
    ]
    (estate.folder / "trust" / "again" / "identity.pem").unlink()
    assert "is used up" in typed(said, estate).err


def test_it_needs_no_instance_and_another_try_makes_the_one_before_worthless(estate: Estate, machine: Machine) -> None:
    """The store alone has to answer."""
    machine.kill("instance")
    first, second = recover(estate, machine, "bob"), recover(estate, machine, "bob")
    machine.start_instance()
    until(lambda: "cannot reach" not in typed(first, estate).err, what="the door is open", timeout_s=40)
    assert "the token was revoked," in typed(first, estate).err
    assert typed(second, estate).out == "logged in as admin bob; context again is used now\n"
    assert Folder(estate.folder / "trust" / "again").load(Role.ADMIN).identity.name == "bob"


def test_what_is_wrong_with_it_is_told(estate: Estate, machine: Machine, tmp_path: Path) -> None:
    """Each with a remedy. The last try works."""

    def refused(name: str = "ann", trust: Path = machine.trust) -> str:
        return estate.orchctl("cluster", "recover-admin", f"--trust={trust}", name, code=1)

    said = refused(name="Ann B")
    assert "'Ann B' is no name for a person" in said
    assert "hint: a name has small letters" in said
    said = refused(trust=tmp_path / "gone")
    assert f"{tmp_path}/gone/identity.pem is not there" in said
    assert "hint: do it on the machine of a control plane; --trust names the folder" in said
    typed(recover(estate, machine, "bob"), estate)
    said = refused(trust=estate.folder / "trust" / "again")
    assert "is the certificate of admin bob, and one of role controlplane is needed" in said
    copied = tmp_path / "open"
    shutil.copytree(machine.trust, copied)
    copied.chmod(0o755)
    assert f"`chmod 700 {copied}`" in refused(trust=copied)
    machine.kill("etcd")
    said = refused()
    assert "the store does not answer" in said
    assert "`systemctl start orch-etcd`" in said
    machine.start_etcd()
    again = ("cluster", "recover-admin", f"--trust={machine.trust}", "ann")
    until(lambda: estate.run(*again).returncode == 0, what="the store answers", timeout_s=40)


@pytest.mark.root
def test_whoever_is_not_root_is_told_so(machine: Machine) -> None:
    """The folder is nobody else's to read."""
    script = (
        "import os, sys; os.setuid(65534); from controlplane.trust import recover_admin; "
        f"sys.exit(recover_admin.main(['--trust={machine.trust}', 'ann']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import controlplane.trust.recover_admin; {script}"],
        cwd=machines_of_control.ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert "hint: do it as root (sudo)" in done.stderr
