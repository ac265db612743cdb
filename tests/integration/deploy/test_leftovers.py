"""What counts as left by a cluster that has gone."""

import os
import subprocess
import sys

import pytest

from deploy.demo import leftovers

pytestmark = pytest.mark.root

CHILD = """
import ctypes, os, signal
assert ctypes.CDLL(None).unshare(0x20000000) == 0  # CLONE_NEWPID
child = os.fork()
if not child:
    signal.pause()
name = os.readlink(f"/proc/{child}/ns/pid")
print(child, name, flush=True)
input()
os.kill(child, signal.SIGKILL)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
print("ended", flush=True)
input()
"""


def test_a_process_that_has_ended_is_none_while_nobody_has_taken_note_of_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as it:
        assert it.stdin is not None
        assert it.stdout is not None
        pid, name = it.stdout.readline().split()
        assert list(leftovers._users_of({name: sys.maxsize})) == [(int(pid), name)]
        print(file=it.stdin, flush=True)
        assert it.stdout.readline() == "ended\n"
        assert os.readlink(f"/proc/{pid}/ns/pid") == name  # noqa: PTH115 - as the kernel has it
        assert list(leftovers._users_of({name: sys.maxsize})) == []
        print(file=it.stdin, flush=True)
