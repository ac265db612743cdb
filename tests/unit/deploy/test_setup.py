"""The set-up script: what can be said of it without changing the machine."""

import subprocess
import time
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent.parent / "deploy" / "setup.sh"
AT_ONCE_S = 2.0
"""It takes 0.03 s; a busy machine may be slow, a look at the network takes longer."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_an_unknown_stage_is_refused() -> None:
    """With the stages that there are."""
    result = run("everything")
    assert result.returncode == 1
    assert "usage: deploy/setup.sh [run|test]" in result.stderr


def test_a_machine_that_is_ready_is_left_alone() -> None:
    """Every make target begins with it, so it has to be nothing when there is nothing to do."""
    assert run().returncode == 0
    began = time.monotonic()
    result = run()
    assert time.monotonic() - began < AT_ONCE_S
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
