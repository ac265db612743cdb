"""A reader of a log that is being rotated loses nothing and repeats nothing, wherever it begins."""

import threading
from pathlib import Path

import pytest

from agent.adapters.logs import _Follower, parse
from runtime import logs

LINES = 4_000


def write(path: Path, first: int, count: int, *, max_files: int = 1_000_000) -> None:
    """Numbered lines into files that hold about a dozen each."""
    log = logs.LogFile(str(path), max_bytes=600, max_files=max_files)
    for number in range(first, first + count):
        log.write(logs.LineSplitter("stdout").records(b"%d\n" % number, 1_700_000_000_000_000_000 + number))
    log.close()


def numbers(follower: _Follower) -> list[int]:
    parsed = [parse(record, "a") for record in follower.records()]
    return [int(line.text) for line in parsed if line is not None]


@pytest.mark.parametrize("attempt", range(5))
def test_a_follower_keeps_up_with_rotations_under_its_hands(tmp_path: Path, attempt: int) -> None:
    del attempt  # threads take turns as they like; several runs meet several orders
    path = tmp_path / "log"
    writer = threading.Thread(target=write, args=(path, 0, LINES))
    seen: list[int] = []
    with _Follower(path) as follower:
        writer.start()
        while writer.is_alive():
            seen += numbers(follower)
        seen += numbers(follower)
    assert seen == list(range(LINES))


@pytest.mark.parametrize("tail", [0, 1, 7, 40, 399, 400, 1000])
def test_the_last_lines_are_found_over_files(tmp_path: Path, tail: int) -> None:
    path = tmp_path / "log"
    write(path, 0, 400)
    with _Follower(path) as follower:
        follower.skip_to_last(tail)
        assert numbers(follower) == list(range(400))[max(400 - tail, 0) :]
        write(path, 400, 100)
        assert numbers(follower) == list(range(400, 500))


def test_a_reader_that_was_too_slow_goes_on_with_the_oldest_that_is_left(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 0, 5, max_files=2)
    with _Follower(path) as follower:
        assert numbers(follower) == list(range(5))
        write(path, 5, 500, max_files=2)
        rest = numbers(follower)
    gap = next(place for place in range(1, len(rest)) if rest[place] != rest[place - 1] + 1)
    assert rest[:gap] == list(range(5, 5 + gap)), "the file that was open is read to its end"
    assert rest[gap:] == list(range(rest[gap], 505)), "then everything that is left"


def test_nothing_there_is_nothing_read(tmp_path: Path) -> None:
    with _Follower(tmp_path / "log") as follower:
        assert numbers(follower) == []
        write(tmp_path / "log", 0, 3)
        assert numbers(follower) == [0, 1, 2]
