"""Published escapes that go through the command line."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.runtime_cli.conftest import Command

pytestmark = pytest.mark.root


def test_exec_in_a_folder_of_the_host(command: Command) -> None:
    """CVE-2024-21626: `exec --cwd` names a descriptor of the runtime, or one that its caller has leaked."""
    command.start("a")
    host = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        for number in range(3, 14):
            line = command.line("exec", "--cwd", f"/proc/self/fd/{number}", "a", "pwd")
            shell = ["bash", "-c", f'exec 9</proc/self/fd/{host}; exec "$@"', "bash", *line]
            done = subprocess.run(shell, pass_fds=[host], capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode != 0, (number, done.stdout)
            assert done.stderr.startswith("orchrun: "), done.stderr
    finally:
        os.close(host)


def test_exec_with_a_leaked_descriptor(command: Command) -> None:
    """CVE-2024-21626: what the caller of `exec` has open by mistake is not open in the container."""
    command.start("a")
    line = command.line("exec", "a", "ls", "/proc/self/fd")
    shell = ["bash", "-c", 'exec 9</ 203</etc; exec "$@"', "bash", *line]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "1", "2", "3"]  # 3 is the listing's own


@pytest.mark.parametrize("user", [" 1000", "-1", "4294967295", "4294967296", "1000:-1", "+0", "0x0", "1000:", "nobody"])
def test_exec_as_no_user(command: Command, user: str) -> None:
    """CVE-2026-30892: a user that is parsed loosely becomes another one, most often root."""
    command.start("a")
    assert "user" in command.refused("exec", f"--user={user}", "a", "true")


@pytest.mark.parametrize(
    ("user", "expected"), [("1000", "1000 1001"), ("1000:1000", "1000 1000"), ("app", "1000 1001")]
)
def test_exec_as_a_user(command: Command, user: str, expected: str) -> None:
    """CVE-2026-30892, CVE-2022-36109: the very user that was said, and none of root's groups."""
    command.start("a")
    told = command.ok("exec", "--user", user, "a", "sh", "-c", "echo $(id -u) $(id -g); id -G")
    assert told.splitlines()[0] == expected
    assert "0" not in told.splitlines()[1].split()


def test_exec_leaves_the_hosts_null_device_alone(command: Command) -> None:
    """Seen with runc 1.1.5: `exec --user` gives the user what is at stdin, also the host's /dev/null."""
    command.start("a")
    before = Path("/dev/null").stat()
    command.ok("exec", "--user", "app", "a", "true")
    after = Path("/dev/null").stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
