"""When a member of etcd can be spared, and which process it is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.store import condition, etcd_members
from controlplane.trust import beside, storeexchange, storeplace
from trust.folder import Folder, NotTrusted


def member(name: str) -> etcd_members.Member:
    return etcd_members.Member(
        id=1, name=name, peer=f"https://{name}:2380", client=f"https://{name}:2379", learner=False
    )


def seen(name: str) -> condition.Member:
    return condition.Member(address=f"{name}:2379", has_leader=True, term=7, index=50_000)


OTHERS = [member("cp2"), member("cp3")]
WELL = [seen("cp1"), seen("cp2"), seen("cp3")]


@pytest.mark.parametrize(
    ("others", "found", "problem"),
    [
        (OTHERS, WELL, ""),
        ([], [seen("cp1")], ""),
        (OTHERS, WELL[:2], "the etcd of cp3 does not answer"),
        (OTHERS, [*WELL[:2], replace(seen("cp3"), problem="connection refused")], "the etcd of cp3 does not answer"),
        (OTHERS, [*WELL[:2], replace(seen("cp3"), has_leader=False)], "cp3 has not caught up"),
        (OTHERS, [*WELL[:2], replace(seen("cp3"), term=6)], "cp3 has not caught up"),
        (OTHERS, [*WELL[:2], replace(seen("cp3"), index=48_999)], "cp3 has not caught up"),
        (OTHERS, [*WELL[:2], replace(seen("cp3"), index=49_000)], ""),
        # How the one is that is to be ended costs nobody anything.
        (OTHERS, [replace(seen("cp1"), problem="connection refused"), *WELL[1:]], ""),
    ],
)
def test_a_member_is_spared_only_while_all_others_are_well(
    others: Sequence[etcd_members.Member], found: Sequence[condition.Member], problem: str
) -> None:
    """Else the store would lose its quorum with it."""
    said = storeexchange.not_all_well(others, found)
    assert problem in said
    assert bool(said) == bool(problem)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    storeplace.save_member(made, b"key", b"chain", b"roots")
    return made


NOTES = """
import sys, time
from pathlib import Path
from controlplane.trust import beside
from trust.folder import Folder
beside.note(Folder(Path(sys.argv[1])), restarted=True)
print("noted", flush=True)
time.sleep(60)
"""


def test_a_process_is_known_while_it_lives_and_ended_as_asked(folder: Folder) -> None:
    """With the roots that it was started with, whatever the file holds since."""
    assert beside.running(folder) is None
    with subprocess.Popen([sys.executable, "-c", NOTES, str(folder.path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"noted\n"
        storeplace.member_folder(folder).write(storeplace.ROOTS, b"others")
        found = beside.running(folder)
        assert found is not None
        assert (found.pid, found.roots, found.restarted) == (child.pid, beside.digest(b"roots"), True)
        beside.end(found)
        assert child.wait(20) == -signal.SIGTERM
    assert beside.running(folder) is None
    beside.end(found)  # nothing happens


def test_a_pid_that_another_process_has_now_is_not_taken_for_it(folder: Folder) -> None:
    """This very process would be ended."""
    beside.note(folder, restarted=True)
    found = beside.running(folder)
    assert found is not None
    assert found.pid == os.getpid()
    older = replace(found, started=found.started - 1)
    path = storeplace.member_folder(folder).path / beside.FILE
    path.write_text(json.dumps({"pid": older.pid, "started": older.started, "roots": "", "restarted": True}))
    assert beside.running(folder) is None
    beside.end(older)


def test_a_damaged_note_says_so(folder: Folder) -> None:
    """With what mends it."""
    storeplace.member_folder(folder).write(beside.FILE, b"{}")
    with pytest.raises(NotTrusted, match=r"damaged: .*restart orch-etcd"):
        beside.running(folder)
