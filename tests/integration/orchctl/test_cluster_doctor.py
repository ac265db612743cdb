"""`orchctl cluster doctor`, on clusters that are broken for real: what is killed, frozen or cut off."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.core import diagnosis
from controlplane.store.etcd import EtcdStore
from controlplane.trust.standing import store_credentials
from tests.support import aio, cutting, orchctl
from tests.support.founded import Founded, running
from tests.support.trusted_process import ROOT, instance, leader
from tests.support.waiting import until
from trust.core.identity import Role
from trust.folder import Folder

pytestmark = pytest.mark.etcd

Findings = dict[tuple[str, str], dict[str, str]]


@pytest.fixture
def founded(tmp_path: Path) -> Iterator[Founded]:
    """With three members of etcd."""
    with running(tmp_path, members=3) as made:
        yield made


def examined(founded: Founded, *, code: int, environ: dict[str, str] | None = None) -> Findings:
    """What it says, by place and check; the exit code is as expected."""
    done = orchctl.run(environ or founded.environ, "cluster", "doctor", "-o", "json")
    assert done.code == code, done.out + done.err
    found = json.loads(done.out)
    assert all(bool(one["remedy"]) == (one["verdict"] != "ok") for one in found)
    return {(one["place"], one["check"]): one for one in found}


def troubles(found: Findings) -> set[tuple[str, str]]:
    """What is not well, but for what a machine of tests may lack."""
    return {(place, check) for (place, check), one in found.items() if one["verdict"] != "ok"} - {
        (place, "timekeeping") for place, _ in found
    }


def test_everything_is_well_until_members_of_etcd_go(founded: Founded) -> None:
    """One of three: a warning. Two: nobody leads, and it says so all the same, with the remedy."""
    found = examined(founded, code=0)
    for check in ("control plane", "version", "clock", "certificate"):
        assert found["here", check]["verdict"] == "ok"
    assert found["etcd", "quorum"]["message"] == "3 of 3 members answer; 1 may fail"
    assert found["cp1", "instance"]["verdict"] == "ok"
    assert found["", "certificates"]["message"] == "those of 1 machines are renewed in time"
    for check in ("root", "store's root"):
        assert "is good for 3649 days" in found["", check]["message"]
    page = founded.run("cluster", "doctor")
    assert page.code == 0
    assert not troubles(found), "but for the clock, where the machine of the test has nothing that keeps it"
    assert "things were looked at: " in page.err
    first, second, _ = founded.members
    first.kill()
    found = examined(founded, code=1)
    assert found["etcd", "quorum"]["verdict"] == "warning"
    assert "0 more may fail" in found["etcd", "quorum"]["message"]
    gone = found[f"etcd {first.endpoint}", "member"]
    assert (gone["verdict"], "onnection refused" in gone["message"]) == ("failed", True)
    second.kill()

    def leaderless() -> bool:
        return ("", "leader") in examined(founded, code=1)

    until(leaderless, what="nobody leads", timeout_s=30)
    found = examined(founded, code=1)
    assert found["etcd", "quorum"]["verdict"] == "failed"
    assert "1 of 3 members answer" in found["etcd", "quorum"]["message"]
    assert "nothing can be changed; what runs goes on" in found["etcd", "quorum"]["message"]
    first.start()
    assert leader(founded.control, admin(founded).load(Role.ADMIN)) == "cp1"


def admin(founded: Founded) -> Folder:
    return Folder(founded.folder / "trust" / "home")


def test_a_second_instance_is_compared_and_missed_when_it_is_frozen(founded: Founded) -> None:
    (founded.folder / "token").write_text(founded.token("--role=controlplane", "--uses=1"))
    joined = subprocess.run(
        [
            *(sys.executable, "-m", "controlplane.trust.join", f"--token=@{founded.folder / 'token'}"),
            *(f"--door={founded.control.door}", f"--trust={founded.folder / 'cp2'}", "--name=cp2", "--host=127.0.0.1"),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert joined.returncode == 0, joined.stderr
    with instance(founded.folder, "cp2", founded.members) as second:
        assert leader(second, admin(founded).load(Role.ADMIN)) == "cp1"
        until(lambda: ("cp2", "clock") in examined(founded, code=1), what="it is announced", timeout_s=20)
        found = examined(founded, code=1)
        assert {check for _, check in troubles(found)} == {"port 2380/tcp"}, "its member of etcd was never started"
        assert {found["cp2", check]["verdict"] for check in ("instance", "version", "clock")} == {"ok"}
        asked = {**founded.environ, "ORCH_SERVER": second.address}
        assert examined(founded, code=1, environ=asked)["cp2", "instance"]["verdict"] == "ok", "the leader is asked"
        pid = second._process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            frozen = examined(founded, code=1)["cp2", "instance"]
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (frozen["verdict"], "it does not answer" in frozen["message"]) == ("failed", True)


def test_a_control_plane_that_is_not_there_and_one_that_refuses_are_findings(founded: Founded) -> None:
    somebody = founded.somebody("ann")
    (founded.folder / "token").write_text(founded.token("--role=viewer", "--person=ann", "--uses=1"))
    login = orchctl.run(
        somebody, "login", f"--token=@{founded.folder / 'token'}", f"--door={founded.control.door}", "--context=x"
    )
    assert login.code == 0, login.err
    viewer = {**somebody, "ORCH_SERVER": founded.control.address}
    refused = examined(founded, code=1, environ=viewer)["", "diagnosis"]
    assert "viewer ann may not call Diagnose" in refused["message"]
    founded.control.stop()
    found = examined(founded, code=1)
    assert found["here", "certificate"]["verdict"] == "ok"
    missing = found["here", "control plane"]
    assert (missing["verdict"], "cannot reach the control plane" in missing["message"]) == ("failed", True)
    assert "does it run" in missing["remedy"]


@aio.bounded(60)
async def test_a_member_asked_by_an_address_that_its_certificate_lacks_says_so(tmp_path: Path) -> None:
    """By way of a forwarder at another address, which the certificate of etcd does not know."""
    with running(tmp_path) as made:
        (member,) = made.members
        async with cutting.running(member.endpoint, lambda: None, host="127.0.0.9") as way:
            store = EtcdStore([f"127.0.0.9:{way.port}"], credentials=store_credentials(Folder(tmp_path / "cp1")))
            try:
                (said,) = await store.condition()
            finally:
                await store.close()
    (found,) = (one for one in diagnosis.etcd([said]) if one.check == "certificate")
    assert "not for the address by which it is asked" in found.message
    assert "--host" in found.remedy
