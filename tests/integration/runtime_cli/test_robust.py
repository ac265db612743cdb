"""orchrun killed at any moment, and called many times at once."""

import subprocess
from pathlib import Path

import pytest

from tests.integration.runtime_cli.conftest import Command

pytestmark = pytest.mark.root


def test_a_creation_that_is_killed_leaves_what_delete_removes(command: Command) -> None:
    """Killed after 0, 8, 16, … ms: whatever is there then, delete by force takes away."""
    bundle = command.bundle("a", ["sleep", "1000"])
    finished = 0
    for step in range(20):
        with subprocess.Popen(
            command.line("create", "--bundle", bundle, "a"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                finished += process.wait(timeout=0.008 * step) == 0
            except subprocess.TimeoutExpired:
                process.kill()
        command.ok("delete", "--force", "a")
        assert command.leftovers() == []
        assert not Path(f"/sys/fs/cgroup/pids{command.parent}/a").exists()
    assert finished < 20, "none was killed"


def test_of_many_at_once_one_succeeds(command: Command) -> None:
    """create, start and delete of one container, each called six times at once."""
    bundle = command.bundle("a", ["sleep", "1000"])

    def at_once(*arguments: object) -> list[int]:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes = [subprocess.Popen(command.line(*arguments), **quiet) for _ in range(6)]
        return sorted(process.wait(timeout=60) for process in processes)

    assert at_once("create", "--bundle", bundle, "a") == [0, 1, 1, 1, 1, 1]
    assert command.status("a") == "created"
    assert at_once("start", "a") == [0, 1, 1, 1, 1, 1]
    assert command.status("a") == "running"
    assert at_once("pause", "a") == [0, 1, 1, 1, 1, 1]
    assert at_once("delete", "--force", "a") == [0] * 6
    assert command.leftovers() == []
