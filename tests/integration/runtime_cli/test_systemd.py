"""A machine whose process 1 is systemd: what the command asks of it."""

import subprocess
from pathlib import Path

import pytest

REASON = "systemd does not run here; the virtual machine has it"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(Path("/proc/1/comm").read_text() != "systemd\n", reason=REASON),
]


def test_it_says_that_it_is_there() -> None:
    """By the folder that programs look for, and the socket that answers root without a message bus."""
    assert Path("/run/systemd/system").is_dir()
    assert Path("/run/systemd/private").is_socket()


def test_it_answers() -> None:
    """The exit code tells whether the machine is well, which is not the question."""
    command = ["systemctl", "is-system-running"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert said.stdout.strip() in {"running", "degraded", "starting"}, said
