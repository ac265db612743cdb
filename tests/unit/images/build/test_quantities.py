"""Times, sizes, modes, signals and ports: read as the tools read them that people know them from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from images.build import quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("0s", 0),
        ("5s", 5 * 10**9),
        ("1m30s", 90 * 10**9),
        ("1h", 3600 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("500ms", 5 * 10**8),
        ("0.3s", 3 * 10**8),
        (".5s", 5 * 10**8),
        ("1.s", 10**9),
        ("2us3ns", 2003),
        ("1µs", 1000),
        ("1h0m0.001s", 3600 * 10**9 + 10**6),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert quantities.duration_ns(text) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("7", 7), ("0000007", 7), ("8", None), ("", None), ("-1", None), ("+1", None), ("1_0", None),
        (" 1", None), ("\u0661", None), ("\u00b2", None), ("9" * 5000, None), ("00000000000" + "9" * 5000, None),
    ],
)  # fmt: skip
def test_whole_numbers(text: str, number: int | None) -> None:
    assert quantities.whole_number(text, most=7) == number


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1 s", "-1s", "1s2", "1.2.3s", "٣s", "1e3s", "."])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write numbers with units"):
        quantities.duration_ns(text)


def test_times_have_ends() -> None:
    assert quantities.check_duration_ns("0") == 0
    assert quantities.check_duration_ns("1ms") == 10**6
    with pytest.raises(ValueError, match="too short; write 1ms or more"):
        quantities.check_duration_ns("999us")
    with pytest.raises(ValueError, match="longer than 292 years"):
        quantities.duration_ns("9999999h")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("4096", 4096), ("1k", 1024), ("64m", 64 << 20), ("1.5g", 3 << 29), ("2GB", 2 << 30), ("1MiB", 1 << 20)],
)
def test_sizes(text: str, expected: int) -> None:
    assert quantities.size_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1 000", "1mm", "9" * 20])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size; write a number with k, m or g"):
        quantities.size_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("SIGTERM", 15), ("TERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN", 34), ("RTMIN+3", 37), ("sigrtmax-1", 63)],
)
def test_signals(text: str, expected: int) -> None:
    assert quantities.signal_number(text) == expected


@pytest.mark.parametrize("text", ["", "0", "65", "SIGFOO", "SIG", "RTMIN+31", "RTMAX+1", "-9", "9" * 30, "SIG_IGN"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(ValueError, match="SIG"):
        quantities.signal_number(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", ("80/tcp",)),
        ("53/UDP", ("53/udp",)),
        ("8000-8002/tcp", ("8000/tcp", "8001/tcp", "8002/tcp")),
        ("7-7/sctp", ("7/sctp",)),
    ],
)
def test_ports(text: str, expected: tuple[str, ...]) -> None:
    assert quantities.ports(text) == expected


@pytest.mark.parametrize("text", ["", "0", "65536", "80/icmp", "9-8", "80:80", "-80", "80-", "http"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        quantities.ports(text)


MODES = [
    "0", "7", "644", "0755", "1777", "4755",
    "+x", "-x", "=r", "a+w", "u+x", "go-rwx", "u=rwx,g=rx,o=", "u=rwX,go=rX", "a+X", "u+x-w", "g=u", "o=g", "o-u",
    "u+s", "g+s", "+s", "+t", "a-s", "u=s", "u+t", "o+t", "o=t", "g=s", "ug+rw,o-w,a+X", "=", "u=", "+",
]  # fmt: skip


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("text", MODES)
def test_modes_are_what_chmod_makes_of_them(text: str, tmp_path: Path, *, is_folder: bool) -> None:
    """chmod(1) is the judge, for files and folders of every kind of mode."""
    chmod = shutil.which("chmod")
    assert chmod, "chmod is on every machine that builds this"
    before = [0o0, 0o644, 0o750, 0o711, 0o4755, 0o2711, 0o1777, 0o7777]
    paths = [tmp_path / f"{mode:o}" for mode in before]
    for path, mode in zip(paths, before, strict=True):
        path.mkdir() if is_folder else path.touch()
        path.chmod(mode)
    subprocess.run([chmod, "--", text, *paths], check=True, timeout=30, umask=0)
    expected = [path.stat().st_mode & 0o7777 for path in paths]
    asked = quantities.mode(text)
    # A number takes the set-id bits of a folder away here as it does in an image, where chmod(1) would keep them.
    if is_folder and asked.absolute is not None:
        expected = [asked.absolute] * len(before)
    assert [asked.of(mode, is_folder=is_folder) for mode in before] == expected


@pytest.mark.parametrize("text", ["", "8", "99999", "u", "x", "u+y", "z+x", "u+x,", "rwxr-xr-x", "0o755", "+0755"])
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(ValueError, match="is no mode; write 755, or changes"):
        quantities.mode(text)
