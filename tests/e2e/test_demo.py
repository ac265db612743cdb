"""The tour of the demo: it holds, twice in a row, and leaves nothing however it ends."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo import leftovers
from deploy.local import plan, record
from tests.support import cluster as support
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

TOUR_TIMEOUT_S = 180


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the demo makes its folder."""
    with support.folder() as path:
        yield path


@contextlib.contextmanager
def started(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """In a process group of its own, as a shell starts it."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "deploy.demo"],
        env={**os.environ, "TMPDIR": str(temporary)},
        cwd=support.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with demo:
        try:
            yield demo
        finally:
            demo.kill()
            until(lambda: not list(temporary.iterdir()), what="the demo's folder is gone", timeout_s=30)


def read_until(demo: subprocess.Popen[str], text: str) -> None:
    assert demo.stdout is not None
    seen = ""
    for line in demo.stdout:
        seen += line
        if text in line:
            return
    pytest.fail(f"the demo ended before it said {text!r}:\n{seen}")


@pytest.mark.parametrize("time", [1, 2])
def test_every_step_holds(temporary: Path, time: int) -> None:
    """Run twice in a row, it works twice."""
    with started(temporary) as demo:
        output, _ = demo.communicate(timeout=TOUR_TIMEOUT_S)
        assert demo.returncode == 0, f"run {time}:\n{output}"
        assert "nothing is left" in output
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("way", ["Ctrl-C", "kill -9"])
def test_a_demo_that_is_broken_off_leaves_nothing(temporary: Path, way: str) -> None:
    """In the middle of things, with containers running."""
    before = leftovers.look()
    with started(temporary) as demo:
        read_until(demo, "each answers for itself")
        the_plan = _plan_below(temporary)
        its_namespaces = leftovers.namespaces(the_plan)
        if way == "Ctrl-C":
            os.killpg(demo.pid, signal.SIGINT)
        else:
            demo.kill()
        demo.communicate(timeout=60)
        assert demo.returncode == (130 if way == "Ctrl-C" else -signal.SIGKILL)
        until(lambda: not list(temporary.iterdir()), what="the folder is gone", timeout_s=30)
        assert leftovers.find(the_plan, before, its_namespaces) == []


def _plan_below(temporary: Path) -> plan.Plan:
    (folder,) = temporary.iterdir()
    the_record = record.load(folder)
    assert the_record is not None
    return the_record.plan
