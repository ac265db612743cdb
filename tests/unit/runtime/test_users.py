"""An image's USER, against hostile and ordinary files."""

import os
from pathlib import Path

import pytest

from runtime import errors, users
from runtime.spec import User

PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nbroken:x:y:z::/:\n5:x:77:78::/five:/bin/sh\n"
)
GROUP = "root:x:0:\napp:x:1001:\nvideo:x:44:app,other\nwheel:x:10:root\n"


@pytest.mark.parametrize(
    ("username", "uid", "gid", "groups", "home"),
    [
        ("app", 1000, 1001, (44,), "/home/app"),
        ("1000", 1000, 1001, (44,), "/home/app"),
        ("app:video", 1000, 44, (), "/home/app"),
        ("app:5", 1000, 5, (), "/home/app"),
        ("4242", 4242, 0, (), "/"),
        ("4242:4243", 4242, 4243, (), "/"),
        ("5", 77, 78, (), "/five"),  # a name that is a number wins, as for the C library
        ("root", 0, 0, (10,), "/root"),
    ],
)
def test_usernames(username: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    """Names and numbers, with and without a group; a given group stands alone."""
    found = users.identify(User(username=username), PASSWD, GROUP)
    assert found == users.Identity(uid=uid, gid=gid, groups=groups, home=home)


@pytest.mark.parametrize("username", ["nobody", "broken", "app:nogroup", " 1000", "-1", "1000:", "\u0661"])
def test_unknown_names_are_refused(username: str) -> None:
    """Nothing is guessed: not from a malformed row, a sign, a space, or digits of another script."""
    with pytest.raises(errors.SetupFailed, match="there is no"):
        users.identify(User(username=username), PASSWD, GROUP)


def test_number_beyond_the_range_is_refused() -> None:
    """It is never cut to 32 bits, where it could become root."""
    for username in ("4294967295", "4294967296", "1:4294967296"):
        with pytest.raises(errors.InvalidSpec, match="above the highest id"):
            users.identify(User(username=username), PASSWD, GROUP)


def test_numbers_need_no_file() -> None:
    """Plain ids are used as they are."""
    found = users.identify(User(uid=7, gid=8, additional_gids=(9,)), "", "")
    assert (found.uid, found.gid, found.groups) == (7, 8, (9,))


def test_tables_are_regular_files_of_a_bounded_size(tmp_path: Path) -> None:
    """A FIFO would hang the start, and an endless file fill the memory."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.SetupFailed, match="not a regular file"):
        users.read_table(str(tmp_path / "fifo"))
    with (tmp_path / "large").open("wb") as file:
        file.truncate(users.MAX_FILE_BYTES + 1)
    with pytest.raises(errors.SetupFailed, match="above"):
        users.read_table(str(tmp_path / "large"))
    assert not users.read_table(str(tmp_path / "missing"))
