"""Who a process becomes, and with which groups and capabilities, when the image or the caller lies about it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime import errors
from tests.integration.runtime.conftest import Box, wait_until

pytestmark = pytest.mark.root


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def _device(path: Path) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 5))


def _kernel_log(path: Path) -> None:
    path.symlink_to("/proc/kmsg")


def _descriptor(path: Path) -> None:
    path.symlink_to("/proc/self/fd/2")


@pytest.mark.parametrize("make", [_fifo, _huge, _device, _kernel_log, _descriptor])
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_the_table_of_users_is_no_file(box: Box, name: str, make: Callable[[Path], None]) -> None:
    """CVE-2024-9676 and its family: /etc/passwd is a FIFO (waits for ever), a sparse terabyte or a device without an
    end (eats the host's memory), or a link to what only the runtime could read.
    """
    etc = Path(box.overlay("a")["upper"]) / "etc"
    etc.mkdir()
    make(etc / name)
    config = box.config("a", "true")
    config["process"]["user"] = {"username": "app"}
    with pytest.raises(errors.SetupFailed, match=rf"/etc/{name}( is not| is above|: openat2)"):
        box.create("a", config)


def test_long_numbers_in_the_table_of_users(box: Box) -> None:
    """A row whose number has thousands of digits does not exist; nothing is cut to a number of the kernel's size."""
    etc = Path(box.overlay("a")["upper"]) / "etc"
    etc.mkdir()
    rows = [f"app:x:{number}:0::/:/bin/sh" for number in ("0" * 5000, "9" * 5000, 2**32, 2**64, -1, "٣")]
    (etc / "passwd").write_text("\n".join([*rows, "app:x:1000:1001::/:/bin/sh", ""]))
    config = box.config("a", "id", "-u")
    config["process"]["user"] = {"username": "app"}
    box.create("a", config)
    box.ended("a")
    assert box.output("a") == "1000"


@pytest.mark.parametrize("user", [" 1000", "-1", "4294967295", "4294967296", "9" * 5000, "1000:-1", "+0", "0x0", "٣"])
def test_a_user_that_is_no_user(box: Box, user: str) -> None:
    """CVE-2026-30892: a user that is parsed loosely becomes another one, most often root."""
    config = box.config("a", "true")
    config["process"]["user"] = {"username": user}
    with pytest.raises(errors.ContainerError, match="user"):
        box.create("a", config)


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ({"uid": 1000, "gid": 1000}, {1000}),
        ({"username": "1000:1000"}, {1000}),
        ({"username": "app"}, {1001, 44, 29}),
    ],
)
def test_no_groups_but_the_users(box: Box, user: dict[str, Any], groups: set[int]) -> None:
    """CVE-2022-36109, CVE-2022-2989: groups of the runtime or of root stay with the user, or the user's are missing."""
    config = box.config("a", "cat", "/proc/self/status")
    config["process"]["user"] = user
    box.create("a", config)
    box.ended("a")
    rows = dict(line.split(":", 1) for line in box.output("a").splitlines() if ":" in line)
    found = {int(word) for word in (rows["Groups"] + rows["Gid"]).split()}
    assert found == groups
    assert 0 not in found


@pytest.mark.parametrize("user", [{"uid": 0}, {"uid": 1000, "gid": 1000}])
def test_nothing_is_inherited(box: Box, user: dict[str, int]) -> None:
    """CVE-2022-24769, CVE-2022-29162: with a filled inheritable set, a file's inheritable capabilities take effect."""
    config = box.config("a", "sh", "-c", "cat /proc/self/status; sleep 100")
    config["process"]["user"] = {"gid": 0, **user}
    box.create("a", config)
    wait_until(lambda: "CapAmb" in box.output("a"), "the container has told its capabilities")
    ours, theirs = os.pipe()
    with box.monitor("a") as monitor, os.fdopen(ours, "rb", buffering=0) as output:
        number, _, _ = monitor.execute({"args": ["cat", "/proc/self/status"]}, stdio=(theirs, theirs, theirs))
        os.close(theirs)
        assert monitor.wait_exec(number, 10) == 0
        seen = box.output("a") + output.readall().decode()
    for name in ("CapInh", "CapAmb"):
        values = [line.split()[1] for line in seen.splitlines() if line.startswith(name)]
        assert len(values) == 2, seen
        assert {int(value, 16) for value in values} == {0}, name
