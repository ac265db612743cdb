"""Finding out whether containers can have user namespaces."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import syscalls, userprobe

pytestmark = pytest.mark.root

FIRST = 1 << 20
TMPFS_MAGIC = 0x01021994


@pytest.fixture(autouse=True)
def _folder_that_will_do(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_PATH)
    kind = syscalls.fstatfs_type(folder)
    os.close(folder)
    if kind == TMPFS_MAGIC and syscalls.kernel_version() < (6, 3):
        pytest.skip("pytest's folders are on a tmpfs, which can be idmapped from Linux 6.3 on")


def test_an_ordinary_folder_will_do(tmp_path: Path) -> None:
    """And nothing stays in it, also of a probe that was killed."""
    (tmp_path / userprobe.FOLDER / "left").mkdir(parents=True)
    assert userprobe.why_not(str(tmp_path), str(tmp_path), first_id=FIRST) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_be_idmapped(tmp_path: Path) -> None:
    """Is named with the reason and what to use instead, whichever of the two folders is on it."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    script = (
        f"mount -t ramfs ramfs {theirs} && exec {sys.executable} -c 'import sys; from runtime import userprobe\n"
        f"for folders in (sys.argv[1:], sys.argv[:0:-1]): print(userprobe.why_not(*folders, first_id={FIRST}))' "
        f"{ours} {theirs}"
    )
    out = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script],
        cwd=Path(userprobe.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    lines = out.stdout.splitlines()
    assert len(lines) == 2, lines
    for line in lines:
        assert f"{theirs}/.probe cannot be idmapped: its file system" in line
        assert "use ext4, xfs, btrfs, or tmpfs from Linux 6.3 on" in line


def test_no_user_namespaces_at_all(tmp_path: Path) -> None:
    """A limit of none is what hardened hosts set; the probe says so instead of failing."""
    script = (
        "import sys; from runtime import userprobe; from pathlib import Path\n"
        "Path('/proc/sys/user/max_user_namespaces').write_text('0')\n"
        f"print(userprobe.why_not(sys.argv[1], sys.argv[1], first_id={FIRST}))"
    )
    # The limit is of the user namespace that it is written in, so one of the test's own keeps the host's as it is.
    out = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount-proc",
            "--pid",
            "--fork",
            sys.executable,
            "-c",
            script,
            str(tmp_path),
        ],
        cwd=Path(userprobe.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert out.returncode == 0, out.stderr
    assert "raise user.max_user_namespaces" in out.stdout
