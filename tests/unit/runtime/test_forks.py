"""Processes that are made in ways which Python does not have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import forks

# In an interpreter of its own, which has one thread. The pids of: the one that ends, the one that goes on as it knows
# itself and was told, its parent, and a child that it forks later.
_STORY = """
import os, sys
from runtime import forks
if sys.argv[1] == "copy":
    forks._succeed = None
ours, theirs = os.pipe()
before = os.fork()
if before == 0:
    memory = list(range(100000))
    told = forks.become_sibling()
    later = os.fork()
    if later == 0:
        os._exit(3)
    code = os.waitstatus_to_exitcode(os.waitpid(later, 0)[1])
    os.write(theirs, repr([os.getpid(), told, os.getppid(), code, sum(memory)]).encode())
    os._exit(7)
os.close(theirs)
first = os.waitstatus_to_exitcode(os.waitpid(before, 0)[1])
said = eval(os.read(ours, 1000))
print(said == [said[0], said[0], os.getpid(), 3, 4999950000], said[0] != before, first)
print(os.waitstatus_to_exitcode(os.waitpid(said[0], 0)[1]))
"""


@pytest.mark.parametrize("way", ["takeover", "copy"])
def test_going_on_as_a_sibling(way: str) -> None:
    """The old process ends well, the new one knows its pid, is the same parent's child, and is whole: it has the memory
    and can fork; with machine code and without.
    """
    ended = subprocess.run(
        [sys.executable, "-c", _STORY, way],
        cwd=Path(forks.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("True True 0\n7\n", "", 0)


def test_this_machine_has_the_fast_way() -> None:
    """Else each start of a container pays for a copy of the runtime's memory."""
    if os.uname().machine != "x86_64":
        pytest.skip("the instructions are written for x86-64")
    assert forks._succeed is not None
